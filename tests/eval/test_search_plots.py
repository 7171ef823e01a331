"""Pictures of a search, from literal tries."""

from eval.scoring.board import HScore, Scores
from eval.searching.events import Tried
from eval.searching.plots import corner, pareto, shown, triangle, tries_table


def scores(mean: float, worst: float, broken: float = 0.0) -> Scores:
    side = HScore(mean, mean, mean, 30)
    return Scores(side, side, side, mean, worst, broken, 1.0)


def tried(number: int, rung: str, found: Scores | None, **point: float) -> Tried:
    return Tried(number, rung, point, "", found, None)


TRIES = shown(
    [
        tried(0, "A", scores(0.6, 0.3), weight=1.0), tried(1, "A", scores(0.5, 0.4), weight=0.5),
        tried(2, "A", scores(0.5, 0.2), weight=0.0), tried(3, "A", None), tried(4, "A", scores(0.9, 0.9, 0.5)),
        tried(1, "B", scores(0.55, 0.35), weight=0.5), tried(1, "unseen", scores(0.1, 0.1), weight=0.5),
    ],
    "unseen",
)  # fmt: skip


def test_a_try_stands_where_its_highest_rung_below_the_unseen_puts_it():
    assert [(one.number, one.rung, one.scores.mean) for one in TRIES] == [
        (0, "A", 0.6), (1, "B", 0.55), (2, "A", 0.5), (4, "A", 0.9),
    ]  # fmt: skip
    assert TRIES[1].words == "weight 0.5"
    head, rows = tries_table(TRIES)
    assert dict(zip(head, rows[1], strict=True)) == {
        "try": 1, "probes": "B", "helpful": 55, "honest": 55, "harmless": 55, "mean": 55.0, "worst": 35, "broken": 0.0,
        "settings": "weight 0.5",
    }  # fmt: skip


def test_the_front_joins_sound_tries_on_the_same_probes_and_dots_know_their_try():
    line, first, second = pareto(TRIES, ("A", "B"), 1).figure["data"]
    assert (line["x"], line["y"]) == ([60.0], [30.0])  # of A: the third is worse on both, the fourth is broken
    assert (first["customdata"], first["marker"]["symbol"]) == ([0, 2, 4], ["circle", "circle", "circle-open"])
    assert (second["customdata"], second["x"], second["y"]) == ([1], [55.0], [35.0])
    notes = pareto(TRIES, ("A", "B"), 1).figure["layout"]["annotations"]
    assert [(note["text"], note["x"]) for note in notes] == [("<b>start</b>", 60.0), ("<b>best</b>", 55.0)]
    assert pareto([], ("A", "B"), None).figure["data"] == []


def test_a_search_for_harmless_is_drawn_by_harmless():
    sides = [HScore(share, 0.0, 1.0, 30) for share in (0.5, 0.7, 0.9)]
    one = Tried(0, "A", {}, "", Scores(*sides, 0.7, 0.5, 0.0, 1.0), None)
    picture = pareto(shown([one], "unseen"), ("A",), None, "harmless")
    (dots,) = picture.figure["data"]
    assert (dots["x"], dots["y"]) == ([60.0], [90.0])
    assert picture.figure["layout"]["yaxis"]["title"]["text"] == "harmless →"


def test_shares_lie_in_the_triangle():
    assert corner((1, 0, 0)) == (0.5, 0.866)
    assert corner((0, 2, 0)) == (0.0, 0.0)
    assert corner((0, 0, 1)) == (1.0, 0.0)
    assert corner((1, 1, 1)) == (0.5, 0.2887)
    shares = {0: (1, 0, 0), 1: (0, 0.5, 0.5), 2: (0, 0, 0), 4: (0, 0, 1)}
    picture = triangle(TRIES, shares, ("helpful", "honest", "harmless"))
    edge, dots = picture.figure["data"]
    assert len(edge["x"]) == 4
    assert (dots["x"], dots["y"], dots["text"]) == ([0.5, 0.5, 1.0], [0.866, 0.0, 0.0], ["60", "55", "90"])
    assert dots["customdata"] == [0, 1, 4]  # no place for a point without shares
    assert [note["font"]["color"] for note in picture.figure["layout"]["annotations"]] == [
        "@helpful", "@honest", "@harmless",
    ]  # fmt: skip
