"""A search as the page reads it back from its job's log, and what it says of it."""

import re

from eval.scoring.board import HScore, Scores
from eval.scoring.stats import Difference
from eval.searching.events import Begun, Done, Finalist, Rung, Tried
from merging.events import to_json
from ui.found import Found, with_event
from ui.panels.search import clicked, finalists_html
from ui.score_findings import search_finding

SIDE = HScore(0.6, 0.5, 0.7, 300)
SCORES = Scores(SIDE, SIDE, SIDE, 0.6, 0.6, 0.0, 1.0)
LADDER = (Rung("A", "town", "screen", 90), Rung("unseen", "town", "test", 900, most=2))
BEGUN = Begun(("weight",), LADDER, 4, None)
TRIED = [Tried(n, "A", {"weight": 0.5 * n}, f"recipe {n}", SCORES, 60.0 - n) for n in range(2)]


def found(*events: object) -> Found:
    made = Found("tpe", ("helpful", "honest"))
    for event in events:
        made = with_event(made, to_json(event))
    return made


def sentence(made: Found | None) -> str:
    return re.sub("<[^>]+>", "", search_finding(made).split("</h2>")[0])


def test_progress():
    assert found(BEGUN).busy().what == "the first try"
    busy = found(BEGUN, *TRIED).busy()
    assert (busy.what, busy.share, busy.seconds_left) == ("try 2 of 4", 0.5, 59.0)
    assert found(BEGUN, *TRIED).recipe(1) == "recipe 1"
    assert found(BEGUN, *TRIED).recipe(7) is None


def test_what_is_said_of_the_winner():
    def ended(against: Difference | None) -> Found:
        winner = Finalist(0 if against is None else 1, "recipe", SCORES, SCORES, against)
        return found(BEGUN, *TRIED, winner, Done(winner.number, "recipe", 4, 0.02, 9.0))

    assert sentence(None) == "Let the machine turn the knobs."
    assert sentence(found(BEGUN, *TRIED)) == "2 tries so far."
    assert sentence(ended(None)) == "Nothing beat the recipe that the search began with."
    better = ended(Difference(0.031, 0.01, 0.05))
    assert sentence(better) == "Try 1 beats the recipe it began with by 3.1 on unseen probes."
    assert sentence(ended(Difference(0.01, -0.01, 0.03))).startswith("Unseen probes cannot tell try 1")
    assert sentence(ended(Difference(-0.05, -0.07, -0.03))).endswith("5 worse than the recipe it began with.")
    html = finalists_html(better)
    assert "60 (50 to 70)" in html
    assert "+3.1 (+1.0 to +5.0)</td>" in html
    assert "the best of 4 equally good tries looks about 2.0 points better" in html


def test_a_search_for_harmless_is_compared_by_harmless_probes():
    begun = Begun(("weight",), LADDER, 4, None, "harmless")
    winner = Finalist(1, "recipe", SCORES, SCORES, Difference(0.031, 0.01, 0.05))
    made = found(begun, *TRIED, winner, Done(1, "recipe", 4, 0.02, 9.0))
    assert sentence(made) == "Try 1 beats the recipe it began with by 3.1 on unseen harmless probes."
    assert "harmless against the recipe it began with" in finalists_html(made)


def test_a_click_is_a_number_or_nothing():
    assert clicked({"customdata": 3}) == 3
    assert [clicked(word) for word in ({"customdata": "3"}, {}, None, "x", {"customdata": [1]})] == [None] * 5
