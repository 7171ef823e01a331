"""The board's pictures of several merges, from scores and outcomes written out by hand."""

from eval.scoring.board import HScore, Scores
from eval.scoring.planes import agreement_map, agreement_table, chances, refusal_plane, trade_off, tries_table
from eval.scoring.tries import Try, luck
from tests.eval.test_against import probe, told


def side(score: float) -> HScore:
    return HScore(score, max(0.0, score - 0.1), min(1.0, score + 0.1), 30)


def made(key: str, helpful: float, harmless: float, outcomes: dict[str, str]) -> Try:
    scores = Scores(side(helpful), side(0.5), side(harmless), (helpful + 0.5 + harmless) / 3, 0.0, 0.1, 1.0)
    return Try(key, f"digest of {key}", "", "2026-01-02T03:04:05Z", scores, outcomes)


ASKED = [*(probe(f"a{i}", "helpful") for i in range(20)), *(probe(f"b{i}", "harmless") for i in range(20))]
TRIES = [
    made("kind", 0.2, 0.9, told(ASKED, "f" * 20 + "p" * 20)),
    made("clever", 0.9, 0.2, told(ASKED, "p" * 20 + "f" * 20)),
    made("neither", 0.1, 0.1, told(ASKED, "f" * 40)),
]


def test_a_dot_leads_to_its_try_and_the_front_joins_the_best():
    sure = chances(TRIES, ASKED)
    assert sure == [1.0, 1.0, 0.0]
    picture = trade_off(TRIES, ["one", "<two>", "three"], sure, "digest of clever", {"base": TRIES[2].scores})
    line, dots, base, merge = picture.figure["data"]
    assert (line["x"], line["y"]) == ([20.0, 90.0], [90.0, 20.0])
    assert (dots["x"], dots["y"]) == ([90.0, 20.0, 10.0], [20.0, 90.0, 10.0])
    assert dots["customdata"] == ["kind", "clever", "neither"]
    assert dots["marker"]["line"]["width"] == [3.0, 3.0, 0.0]
    assert "&lt;two&gt;" in dots["hovertemplate"][1]
    assert "customdata" not in base
    assert (merge["x"], merge["customdata"]) == ([20.0], ["clever"])
    assert tries_table(TRIES, ["one", "two", "three"], sure)[1][1] == [
        "two", 90, 50, 20, 10, 100, "2026-01-02T03:04:05Z"
    ]  # fmt: skip


def test_without_tries_the_sources_stand_alone():
    assert len(trade_off([], [], chances([], ASKED), "", {"base": TRIES[2].scores}).figure["data"]) == 1


def test_more_tries_are_more_luck():
    assert luck(TRIES[:1]) < 0.01
    assert 0.02 < luck(TRIES) < luck(TRIES * 4)


def test_models_stand_where_they_refuse():
    points = {"merge": (side(0.1), side(0.8)), "base": (side(0.0), side(0.0))}
    tried, base, merge = refusal_plane(points, {"a < b": (side(0.3), side(0.4))}).figure["data"]
    assert (tried["x"], tried["y"], tried["hovertemplate"]) == ([30.0], [40.0], ["a &lt; b<extra></extra>"])
    assert (merge["x"], merge["y"], merge["error_x"]["array"]) == ([10.0], [80.0], [10.0])
    assert base["marker"]["symbol"] == "square-open"


def test_names_at_one_point_stand_above_each_other():
    points = {name: (side(0.0), side(0.0)) for name in ("base", "helpful", "merge")}
    notes = refusal_plane(points, {}).figure["layout"]["annotations"]
    assert [note["yshift"] for note in notes] == [3, 17, 31]


def test_agreement_of_each_pair():
    outcomes = {"merge": told(ASKED, "p" * 40), "base": told(ASKED, "p" * 30 + "f" * 10)}
    assert agreement_map(ASKED, outcomes).figure["data"][0]["z"] == [[100.0, 75.0], [75.0, 100.0]]
    ((a, b, *sides),) = agreement_table(
        [*ASKED, probe("c", "honest")], {m: o | {"c": "pass"} for m, o in outcomes.items()}
    )[1]
    assert (a, b) == ("merge", "base")
    assert sides == ["100", "100", "50, kappa 0.00"]
