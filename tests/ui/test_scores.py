"""What the board shows first of all that was lost."""

from ui.scores import spread


def test_one_of_each_sort_comes_before_the_second_of_any():
    assert spread(["a1", "a2", "a3", "b1", "c1", "b2"], lambda item: item[0]) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_nothing_is_lost_and_nothing_added():
    assert spread([], str) == []
    assert sorted(spread(list("mississippi"), str)) == sorted("mississippi")
