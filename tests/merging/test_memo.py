"""What a matrix remembers."""

from merging.memo import Memo


def test_the_latest_used_of_each_kind_are_kept():
    memo = Memo({"fold": 2})
    for key in (("fold", 1), ("fold", 2), ("spectrum", 0), "base"):
        memo.put(key, str(key))
    assert memo.remember(("fold", 1), lambda: "made anew") == "('fold', 1)"  # used: now the other is the older
    assert memo.remember(("fold", 3), lambda: "three") == "three"
    assert memo.get(("fold", 2)) is None
    assert [memo.get(key) for key in (("fold", 1), ("fold", 3), ("spectrum", 0), "base")] == [
        "('fold', 1)", "three", "('spectrum', 0)", "base",
    ]  # fmt: skip
    memo.trim("fold", 1)
    assert (memo.count("fold"), memo.count("spectrum"), memo.count("nothing")) == (1, 1, 0)
    assert memo.get(("fold", 3)) == "three"


def test_a_kind_without_a_number_of_its_own_keeps_24():
    memo = Memo()
    for i in range(30):
        memo.put(("svd", i), i)
    assert memo.count("svd") == 24
    assert memo.get(("svd", 5)) is None
    assert memo.get(("svd", 6)) == 6
