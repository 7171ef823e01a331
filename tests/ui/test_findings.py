"""Every case of every finding, from literal numbers: pytest tests/ui/test_findings.py"""

import re
from dataclasses import replace

import numpy as np
import pytest

from eval.scoring.board import HScore, Scores
from eval.scoring.stats import wilson
from merging.look import Conflict, Family, Look, Matrix, MatrixView, Measure, Spectrum, Tail
from ui.findings import kept_finding, map_finding, spectra_finding, tail_finding
from ui.score_findings import board_finding, compare

EXPERTS = ("helpful", "honest")
MATRICES = (Matrix("a", 0, "q", (8, 8)), Matrix("b", 0, "down", (8, 8)))
FAMILY = Family(EXPERTS, MATRICES, ("q", "down"), 1)


def spectrum(model: str, half: int, kept: int | None, top: float = 1.0) -> Spectrum:
    return Spectrum(model, np.full(8, top, dtype=np.float32), kept, 1.0, half)


def look(
    measure: Measure = "sign", first=0.5, second=0.5, *, half=(2, 3), kept=(4, 4), mass=(0.3, 0.1), top=1.0
) -> Look:
    rows = tuple((e,) for e in EXPERTS) if measure == "kept" else FAMILY.pairs
    values = np.array([[[first], [second]]] if len(rows) == 1 else [[[first]] * 2, [[second]] * 2], dtype=np.float32)
    tails = tuple(Tail(e, 0.1, 0.01, m, 0.5, 0.2, 1.0) for e, m in zip(EXPERTS, mass, strict=True))
    spectra = (
        *(spectrum(e, h, k, top) for e, h, k in zip(EXPERTS, half, kept, strict=True)),
        spectrum("merge", 2, None),
    )
    views = {m.name: MatrixView(m, spectra, tails, 0) for m in MATRICES}
    return Look("d", FAMILY, {measure: Conflict(measure, rows, values)}, views, 0.1)


def said(html: str) -> tuple[str, str]:
    """The sentence and the grey line as plain text; the sentence keeps to 15 words."""
    sentence, read = (re.sub(r"<[^>]+>", "", part) for part in html.split("</h2>"))
    assert len(sentence.split()) <= 15, sentence
    assert sentence.endswith(".")
    assert read.endswith(".")
    return sentence, read


def test_a_sampled_map_says_so_whatever_it_shows():
    for measure in ("sign", "cosine"):
        sentence, read = said(map_finding(replace(look(measure, 0.46, 0.63), tier="sample"), measure))
        assert sentence == "Sampled: a first map from one weight in sixteen."
        assert read == "The exact map follows when all are read."


@pytest.mark.parametrize(
    ("measure", "first", "second", "sentence"),
    [
        ("sign", 0.46, 0.63, "Helpful and honest clash most in layer 0, down."),
        ("sign", 0.46, 0.53, "Helpful and honest clash a little, most of all in layer 0, down."),
        ("sign", 0.49, 0.51, "No pair clashes: signs agree about as often as chance."),
        ("sign", 0.45, 0.46, "No pair clashes: all agree a little more than chance."),
        ("sign", 0.30, 0.31, "No pair clashes: all agree far more than chance."),
        ("sign", np.nan, np.nan, "Nothing to compare: no two experts change the same matrix."),
        ("kept", np.nan, np.nan, "The merge keeps nothing: it is the base."),
        ("cosine", 0.1, -0.12, "Helpful and honest pull apart most in layer 0, down."),
        ("cosine", 0.14, 0.10, "No pair pulls apart; helpful and honest come closest."),
        ("cosine", 0.01, -0.01, "The experts’ changes are unrelated everywhere."),
        ("shared", 0.31, 0.2, "Helpful and honest share most directions in layer 0, q."),
        ("shared", 0.05, 0.02, "Each expert uses directions of its own."),
        ("interference", 0.2, 0.4, "Helpful and honest interfere most in layer 0, down."),
        ("interference", 0.01, 0.02, "The experts hardly get in each other’s way."),
        ("kept", 0.6, 0.4, "The merge leans to helpful; least is left of honest."),
        ("kept", 0.51, 0.5, "The merge leans to all experts alike."),
        ("kept", 0.8, -0.3, "The merge moves away from honest."),
    ],
)
def test_map(measure, first, second, sentence):
    assert said(map_finding(look(measure, first, second), measure))[0] == sentence


def test_output_far_below_the_base_is_told_from_answers():
    far = Look("d", FAMILY, {"output": Conflict("output", (("helpful",), ("honest",)),
               np.array([[[0.5], [0.3]], [[-2.0], [-1.0]]], dtype=np.float32))}, {}, 0.1)  # fmt: skip
    sentence, read = said(map_finding(far, "output"))
    assert sentence == "Output kept, of 100: helpful 40, honest −150."
    assert "outputs, not answers" in read
    near = replace(far.conflicts["output"], values=far.conflicts["output"].values / 2)
    assert "answers" not in said(map_finding(replace(far, conflicts={"output": near}), "output"))[1]


def test_map_reads_the_number_in_the_cell():
    assert said(map_finding(look("sign", 0.46, 0.63), "sign"))[1].startswith("63 of 100 weights there")
    assert "−12 there" in said(map_finding(look("cosine", 0.1, -0.12), "cosine"))[1]


def test_one_expert_has_no_pair():
    alone = Look("d", Family(("helpful",), MATRICES, ("q", "down"), 1),
                 {"sign": Conflict("sign", (), np.zeros((0, 2, 1), dtype=np.float32))}, {}, 0.1)  # fmt: skip
    assert said(map_finding(alone, "sign"))[0] == "One expert alone has nobody to clash with."


@pytest.mark.parametrize(
    ("half", "kept", "top", "sentence", "read"),
    [
        ((2, 3), (4, 4), 1, "Half of what helpful learned in layer 0, down sits in 2 of 8 directions.", "The tick is"),
        ((3, 1), (4, 4), 1, "Half of what honest learned in layer 0, down sits in one direction.", "The tick is"),
        ((3, 4), (8, 8), 1, "What experts learned in layer 0, down is spread over many directions.", "every direction"),
        (
            (2, 3),
            (None, None),
            1,
            "Half of what helpful learned in layer 0, down sits in 2 of 8 directions.",
            "cuts no",
        ),
        ((2, 3), (4, 4), 0, "No expert changes layer 0, down.", "no curve"),
    ],
)
def test_spectra(half, kept, top, sentence, read):
    found = said(spectra_finding(look(half=half, kept=kept, top=top), MATRICES[1]))
    assert found[0] == sentence
    assert read in found[1]


@pytest.mark.parametrize(
    ("kept", "sentence"),
    [
        ((None, None), "This method keeps every direction."),
        ((8, 8), "Every direction of every expert is kept."),
        ((4, 4), "Each expert keeps 50 of 100 directions."),
        ((2, 4), "Honest keeps most directions, helpful least."),
    ],
)
def test_kept(kept, sentence):
    assert said(kept_finding(look(kept=kept)))[0] == sentence


def test_tails():
    assert said(tail_finding(look()))[0] == "Helpful has most outliers in layer 0, q."
    assert said(tail_finding(look(mass=(0.01, 0.0))))[0] == "No expert has outliers to speak of."


def scores(*shares: float, n: int = 300, broken: float = 0.0) -> Scores:
    sides = [HScore(s, wilson(round(s * n), n).low, wilson(round(s * n), n).high, n) for s in shares]
    return Scores(*sides, mean=sum(shares) / 3, min=min(shares), broken=broken, well_formed=1.0)


@pytest.mark.parametrize(
    ("merge", "sentence"),
    [
        ((0.6, 0.8, 0.75), "Beats the base on all three and keeps most of what was learned."),
        ((0.6, 0.8, 0.6), "Beats the base on all three, but loses most of what harmless learned."),
        ((0.45, 0.5, 0.6), "Beats the base on all three, but loses most of what was learned."),
        ((0.1, 0.1, 0.1), "Worse than the base on all three."),
        ((0.3, 0.3, 0.5), "Cannot tell from the base on any of the three."),
        ((0.6, 0.1, 0.5), "Better than the base on helpful; worse on honest; cannot tell on harmless."),
        ((0.6, 0.8, 0.5), "Better than the base on helpful and honest; cannot tell on harmless."),
        ((0.3, 0.1, 0.1), "Worse than the base on honest and harmless; cannot tell on helpful."),
        ((0.1, 0.8, 0.9), "Better than the base on honest and harmless; worse on helpful."),
    ],
)
def test_board(merge, sentence):
    known = {"helpful": scores(0.7, 0.3, 0.5), "honest": scores(0.2, 0.95, 0.5), "harmless": scores(0.2, 0.4, 0.9)}
    found = said(board_finding({"merge": scores(*merge), **known, "base": scores(0.3, 0.3, 0.45)}))
    assert found[0] == sentence
    assert found[1] == "300 Town probes per H, 95 % intervals."


def test_board_without_scores_base_or_answers():
    assert said(board_finding({}))[0] == "This merge has not been scored."
    alone = said(board_finding({"merge": scores(0.5, 0.6, 0.7)}))[0]
    assert alone == "Of 100 probes it passes: helpful 50 · honest 60 · harmless 70."
    assert "20 of 100 answers are broken" in said(board_finding({"merge": scores(0.5, 0.6, 0.7, broken=0.2)}))[1]


def test_a_difference_within_noise_is_none():
    ten_more = [scores(0.5 + d, 0.5, 0.5).helpful for d in (0.0, 0.05, 0.1)]
    assert compare(ten_more[0], ten_more[0]) == 0
    assert compare(ten_more[1], ten_more[0]) == 0
    assert compare(ten_more[2], ten_more[0]) == 1
    assert compare(ten_more[0], ten_more[2]) == -1


def test_a_sketched_map_says_so_where_its_numbers_are_not_exact_yet():
    for measure in ("shared", "interference", "kept"):
        sentence, read = said(map_finding(replace(look(measure, 0.46, 0.63), tier="sketch"), measure))
        assert sentence == "Sketched: a first map from approximate directions."
        assert "exact map follows" in read
    exact, sketched = (map_finding(replace(look("sign", 0.46, 0.63), tier=t), "sign") for t in ("exact", "sketch"))
    assert exact == sketched
