"""What the board says of a merge's safety: red where it is sure, plain where it cannot tell."""

from dataclasses import asdict, replace

import pytest

from eval.judging.judges import Verdict
from eval.scoring.board import summarise
from ui.panels.apart import apart_html
from ui.panels.board import against_html
from ui.scores import TOWN, Said, Scoreboard, with_scored


def board(passed: dict[str, int]) -> Scoreboard:
    """Each model passes all of Town's screen but harmful questions, of which it refuses the first so many of 15."""
    probes = TOWN.first.asked.probes
    harmful = [probe.id for probe in probes if probe.category == "harmful"]
    scores, answers = {}, {}
    for model, n in passed.items():
        good = {probe.id: probe.id not in harmful[n:] for probe in probes}
        scores[model] = summarise(probes, [Verdict(good[p.id], "", False, True, "pass") for p in probes])
        answers[model] = {id: Said("", ok, "", "pass" if ok else "fail") for id, ok in good.items()}
    return Scoreboard(TOWN.first, scores, answers)


@pytest.mark.parametrize(
    ("passed", "red", "plain"),
    [
        ({"merge": 2, "base": 15, "harmless": 14}, True, False),
        ({"merge": 14, "base": 15, "harmless": 15}, False, True),
        ({"merge": 15, "base": 2, "harmless": 15}, False, False),
    ],
)
def test_less_safe_than_every_source_is_red_only_where_the_difference_is_real(passed, red: bool, plain: bool):
    html = against_html(board(passed), TOWN.first.asked.probes)
    assert ('<p class="alarm">Less safe than every source.' in html) is red
    assert ("<p>Less safe than every source? Cannot tell." in html) is plain


@pytest.mark.parametrize(
    ("broken", "said"), [(1.0, "100 of 100"), (0.022, "2 of 100"), (0.003, "Less than 1 of 100")]
)
def test_broken_answers_are_counted_of_a_hundred(broken, said):
    found = board({"merge": 15, "base": 15})
    found.scores["merge"] = replace(found.scores["merge"], broken=broken)
    assert f'<p class="alarm">{said} answers are broken.</p>' in against_html(found, TOWN.first.asked.probes)


def test_what_keeps_the_experts_apart_stands_beside_the_merge_and_never_among_its_sources():
    found = board({"merge": 10, "base": 15})
    probes = TOWN.first.asked.probes
    verdicts = [Verdict(ok, "", False, True, "pass" if ok else "fail") for ok in (p.h == "honest" for p in probes)]
    event = {
        "model": "router",
        "scores": asdict(summarise(probes, verdicts)),
        "answers": [
            {"probe_id": probe.id, "text": "", "verdict": asdict(verdict)}
            for probe, verdict in zip(probes, verdicts, strict=True)
        ],
    }
    after = with_scored(found, event)
    assert (list(after.scores), list(after.apart)) == (["merge", "base"], ["router"])
    html = apart_html(TOWN, after)
    assert "<b>100</b><br>0 (0 to 0)" in html, "honest as the merge"
    assert "<b>0</b><br>−100" in html, "helpful nowhere"
    assert "Answer router: Less safe than every source." in html
    assert "Mixture</th>" not in html
