"""Blind votes on screen: no name before the vote, nothing but counts under fifty votes."""

from eval.scoring.votes import Vote
from ui.panels.votes import ballot_html, tally_html


def test_names_are_told_after_the_vote_alone():
    before = ballot_html("Why <b>?", ("one", "two"), None, ["helpful"])
    after = ballot_html("Why <b>?", ("one", "two"), ("merge", "helpful"), ["helpful"])
    assert "helpful" not in before
    assert "merge" not in before
    assert after.index("merge") < after.index("one") < after.index("helpful") < after.index("two")
    assert "Why &lt;b&gt;?" in before


def test_counts_first_and_ranks_from_fifty_votes_on():
    votes = [Vote("d1", "d2", "left")] * 40 + [Vote("d1", "d2", "tie")] * 9
    called = {"d1": "merge", "d2": "base"}
    few = tally_html(votes, called)
    assert "<td>40</td><td>0</td><td>9</td><td>0</td>" in few
    assert "49 votes. Counts only" in few
    many = tally_html([*votes, Vote("d2", "d3abcdefg", "left")], called)
    assert "Counts only" not in many
    assert many.index("merge") < many.index("base") < many.index("merge d3abcd")
