"""Which licence of a merge's sources is the strictest, and which do not go together."""

import pytest

from merging.licences import LICENCES, clashes, licence, strictest


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["mit"], "mit"),
        (["apache-2.0", "cc0-1.0"], "apache-2.0"),
        (["apache-2.0", "cc-by-sa-4.0"], "cc-by-sa-4.0"),
        (["bigscience-bloom-rail-1.0", "gpl-3.0"], "bigscience-bloom-rail-1.0"),
        (["openrail", "gemma"], "gemma"),
        (["apache-2.0", "gemma", "llama3.1"], "llama3.1"),
        (["llama3.3", "llama3.1", "llama3", "llama2"], "llama2"),
        (["llama2", "cc-by-nc-4.0"], "cc-by-nc-4.0"),
        (["mrl", "qwen"], "mrl"),
        (["mrl", "cc-by-nd-4.0"], "cc-by-nd-4.0"),
        (["cc-by-nc-nd-4.0", None], "unknown"),
        (["other"], "unknown"),
        ([""], "unknown"),
        (["my-own-1"], "my-own-1"),
    ],
)
def test_the_strictest_of_several(names, found):
    assert strictest(names)[0] == found
    assert strictest(names[::-1])[0] == found


def test_an_unknown_licence_is_said_plainly():
    assert strictest([None]) == ("unknown", "licence unknown: ask before you share.")
    told = "licence unknown (my-own) for 1 of 2 models: ask before you share."
    assert strictest(["my own", "mit"]) == ("my-own", told)


def test_names_as_cards_write_them():
    assert licence("Apache 2.0").id == "apache-2.0"
    assert licence("mistral-research-licence").id == "mrl"
    assert licence("llama-2-community-license").id == "llama2"
    assert licence("LLAMA3.1").id == "llama3.1"


def test_the_duties_that_people_forget():
    assert "name begins with Llama 3" in licence("llama3").asks
    assert "no language model but Meta Llama 3" in licence("llama3").asks
    for free_to_improve in ("llama3.1", "llama3.2", "llama3.3", "llama4"):
        assert "no language model but" not in licence(free_to_improve).asks
        assert "name begins with Llama;" in licence(free_to_improve).asks
    assert "Built with Qwen" in licence("qwen").asks
    assert "research" in licence("qwen-research").asks


@pytest.mark.parametrize(
    "pair",
    [
        ("gemma", "llama3.1"), ("llama2", "llama3"), ("qwen", "gemma"), ("cc-by-sa-4.0", "cc-by-nc-4.0"),
        ("gpl-3.0", "gemma"), ("gpl-3.0", "cc-by-sa-4.0"), ("cc-by-nc-sa-4.0", "llama3"), ("mrl", "cc-by-nc-sa-4.0"),
    ],
)  # fmt: skip
def test_pairs_that_clash_are_named(pair):
    [sentence] = clashes(pair)
    assert all(name in sentence for name in pair)
    assert clashes(pair[::-1]) == [sentence]
    assert sentence in strictest(pair)[1]


@pytest.mark.parametrize(
    "names",
    [
        ("apache-2.0", "mit", "llama3.1"), ("gemma", "gemma"), ("cc-by-nc-4.0", "cc-by-nc-sa-4.0"), ("mit", "mrl"),
        ("gpl-3.0", "agpl-3.0"), ("cc-by-sa-3.0", "cc-by-sa-4.0"), ("other", "gemma"), ("apache-2.0", "gpl-3.0"),
    ],
)  # fmt: skip
def test_pairs_that_go_together(names):
    assert clashes(names) == []


def test_every_licence_says_what_it_asks():
    assert len(LICENCES) > 60
    assert all(one.asks.endswith(".") and len(one.asks) < 260 for one in LICENCES.values())
