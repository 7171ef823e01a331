"""The three bars from literal scores: pytest tests/eval/test_plots.py"""

import json

import pytest

from eval.scoring.board import HScore, Scores
from eval.scoring.plots import bars, bars_height, keeps, scores_table


def side(score: float) -> HScore:
    return HScore(score, score - 0.05, score + 0.05, 100)


def scores(*shares: float) -> Scores:
    return Scores(*map(side, shares), mean=sum(shares) / 3, min=min(shares), broken=0.0, well_formed=1.0)


BOARD = {
    "base": scores(0.30, 0.30, 0.50), "helpful": scores(0.70, 0.20, 0.50), "harmless": scores(0.20, 0.40, 0.80),
    "merge": scores(0.54, 0.50, 0.45),
}  # fmt: skip


def test_each_bar_is_solid_to_the_lower_bound_and_faded_to_the_upper():
    data = bars(BOARD).figure["data"]
    assert len(data) == 3 * 4 * 2
    solid, faded = data[0], data[1]
    assert (solid["x"], faded["x"]) == ([49.0], [10.0])
    assert (solid["marker"]["color"], faded["marker"]["color"]) == ("@merge", "@merge/35")
    assert "54 of 100<br>95 % interval 49 to 59 (100 probes)" in solid["hovertemplate"]


def test_rows_run_merge_experts_base_in_each_group():
    axis = bars(BOARD).figure["layout"]["yaxis"]
    assert axis["ticktext"] == ["<b>merge</b>", "helpful", "harmless", "base"] * 3
    assert axis["tickvals"] == sorted(axis["tickvals"])


def test_what_the_merge_keeps_of_the_best_experts_gain_stands_beside_the_name():
    picture = bars(BOARD)
    texts = [note["text"] for note in picture.figure["layout"]["annotations"]]
    said = [words for words in texts if "keeps" in words or "below" in words]
    assert said == [
        "keeps <b>60 %</b> of the best expert’s gain",  # (54 - 30) / (70 - 30)
        "keeps <b>200 %</b> of the best expert’s gain",  # (50 - 30) / (40 - 30)
        "below the base",
    ]
    assert "keeps <b>60 %</b>" in [note["text"] for note in picture.narrow["annotations"]]


def test_no_gain_no_share():
    assert keeps({"merge": side(0.5), "base": side(0.5)}, 0.5) is None
    assert keeps({"merge": side(0.5)}, 0.7) is None
    assert keeps({"merge": side(0.5), "base": side(0.3)}, None) is None
    assert keeps({"merge": side(0.6), "base": side(0.5)}, 0.9) == pytest.approx(0.25)


def test_a_merge_alone_draws():
    picture = bars({"merge": BOARD["merge"]})
    assert picture.height == bars_height(1)
    json.dumps(picture.figure, allow_nan=False)


def test_table():
    headers, rows = scores_table(BOARD)
    assert headers == ["model", "helpful", "honest", "harmless", "mean", "worst"]
    assert rows[-1] == ["merge", "54 (49 to 59)", "50 (45 to 55)", "45 (40 to 50)", 50, 45]
