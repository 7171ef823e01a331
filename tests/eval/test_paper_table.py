"""The table of the comparison and its three verdicts, from literal records."""

import pytest

from eval.judging.probes import H, Probe
from eval.paper.insights import Verdict, insights, judge_all, judge_both_ways, judge_own
from eval.paper.records import Record, marks
from eval.paper.table import BOUND, Estimate, compare, whole_units, widest
from tests.eval.test_paper import record

# Four probes an H; the first two are about one content.
PROBES = [
    Probe.model_validate(
        {"id": f"{h}{i}", "h": h, "category": "fact", "cluster": f"{h}{max(i, 1)}", "split": "test",
         "messages": [{"role": "user", "content": "?"}], "score": [{"type": "exact", "value": "!"}], "gold_pass": [],
         "gold_fail": []}
    )
    for h in H for i in range(4)
]  # fmt: skip


def scored(row: str, passed: str, unit: tuple[str, str, int] = ("llama", "full", 0), **changes: object) -> Record:
    """`passed`: a mark for each probe, spaces between the H."""
    family, paradigm, seed = unit
    digits = marks([one == "1" for one in passed.replace(" ", "")])
    return record(row, passed=digits, family=family, paradigm=paradigm, seed=seed, **changes)


def test_shares_are_means_over_probes_and_the_worst_is_the_lowest_side() -> None:
    found = compare([scored("TIES", "1111 1100 1000")], PROBES)
    assert found
    assert [found.side("TIES", h).value for h in H] == [100, 50, 25]
    assert found.mean("TIES").value == pytest.approx(175 / 3)
    assert found.worst("TIES").value == 25


def test_two_probes_of_one_content_are_drawn_together() -> None:
    found = compare([scored("TIES", "1111 1100 0000")], PROBES)
    assert found
    sure, pair, none = (found.side("TIES", h) for h in H)
    assert (sure.low, sure.high) == (100, 100)
    assert (none.low, none.high) == (0, 0)
    # Contents: the pair (passed) and two others (failed). All three draws the pair: 100; none of them: 0.
    assert (pair.low, pair.high) == (0, 100)
    draws = set(found.scores["TIES"][1:, 1].round(6))
    # n draws of the pair and 3 - n of the single probes pass 2n of 2n + 3 - n: 0, 2/4, 4/5, all.
    assert draws == {0, 50, 80, 100}


def test_families_and_paradigms_count_alike_however_many_seeds_they_have() -> None:
    records = [
        scored("TIES", "1111 1111 1111", ("llama", "full", 0)),
        scored("TIES", "1111 1111 1111", ("llama", "full", 1)),
        scored("TIES", "1111 1111 1111", ("llama", "full", 2)),
        scored("TIES", "0000 0000 0000", ("llama", "lora", 0)),
    ]
    found = compare(records, PROBES)
    assert found
    assert found.seeds == {("llama", "full"): 3, ("llama", "lora"): 1}
    assert found.means["TIES"] == {("llama", "full"): 100, ("llama", "lora"): 0}
    assert found.mean("TIES") == Estimate(50, 50, 50)


def test_the_spread_over_seeds_widens_the_interval() -> None:
    records = [scored("TIES", f"{mark * 4} 1111 1111", ("llama", "full", seed)) for seed, mark in enumerate("011")]
    found = compare(records, PROBES)
    assert found
    helpful = found.side("TIES", "helpful")
    assert (round(helpful.value), helpful.low, helpful.high) == (67, 0, 100)


def test_rows_share_their_draws_so_that_a_constant_lead_is_certain() -> None:
    found = compare([scored("A", "1100 1100 1100"), scored("B", "1100 1100 1100")], PROBES)
    assert found
    assert found.mean_gap("A", "B") == Estimate(0, 0, 0)
    assert found.mean("A").high > found.mean("A").low


def test_only_whole_units_count() -> None:
    records = [scored("A", "1111 1111 1111"), scored("B", "1111 1111 1111"),
               scored("A", "0000 0000 0000", ("llama", "full", 1))]  # fmt: skip
    assert whole_units(records) == [("llama", "full", 0)]
    found = compare(records, PROBES)
    assert found
    assert found.mean("A").value == 100
    assert compare([], PROBES) is None


def test_a_row_that_few_units_have_waits() -> None:
    units = [("llama", "full", seed) for seed in range(3)]
    records = [scored(row, "1111 1111 1111", unit) for row in "AB" for unit in units]
    one, two, three = (scored("C", "1111 1111 1111", unit) for unit in units)
    assert widest([*records, one]) == records  # 2 rows of 3 units are more than 3 rows of one
    assert {record.unit for record in widest([*records, one, two])} == set(
        units[:2]
    )  # 3 of 2, and more rows than 2 of 3
    assert widest([*records, one, two, three]) == [*records, one, two, three]
    assert widest([]) == []


def test_the_bound_answers_each_h_by_its_own_expert() -> None:
    found = compare([scored("helpful", "1111 0000 0000", method="expert", validation=()),
                     scored("honest", "0000 1100 1111", method="expert", validation=()),
                     scored("harmless", "0000 0000 1000", method="expert", validation=())], PROBES)  # fmt: skip
    assert found
    assert [found.side(BOUND, h).value for h in H] == [100, 50, 25]
    assert found.parts() == {"Whole answers routed": [BOUND], "Sources": ["honest", "helpful", "harmless"]}


def at(low: float, high: float) -> Estimate:
    return Estimate((low + high) / 2, low, high)


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [
        ([at(1, 5), at(-9, -2)], "confirmed"),
        ([at(-1, 1.5), at(-9, -2)], "refuted"),  # nothing can be above 2
        ([at(3, 5), at(-1, 1)], "refuted"),  # nothing can be below -2
        ([at(-1, 4), at(-9, -2)], "undecided"),
    ],
)
def test_both_ways(gaps: list[Estimate], verdict: Verdict) -> None:
    assert judge_both_ways(gaps) == verdict


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [([at(0.1, 2), at(1, 2)], "confirmed"), ([at(-2, -0.1)], "refuted"), ([at(-2, -1), at(-1, 1)], "undecided")],
)
def test_merging_wins(gaps: list[Estimate], verdict: Verdict) -> None:
    assert judge_all(gaps) == verdict


@pytest.mark.parametrize(
    ("gaps", "plain", "verdict"),
    [
        ([at(0.2, 3), at(1, 4)], at(0.2, 3), "confirmed"),
        ([at(-1, 0.9), at(1, 4)], at(-1, 0.9), "refuted"),
        ([at(-1, 1.1), at(1, 4)], at(-1, 1.1), "undecided"),
    ],
)
def test_parameters_decide(gaps: list[Estimate], plain: Estimate, verdict: Verdict) -> None:
    assert judge_own(gaps, plain) == verdict


def test_the_verdicts_of_a_small_world() -> None:
    """helpful training lifts honest and ruins harmless; the chosen merge wins by validation, loses to each mixture."""
    base = "1100 1100 1100"
    records = [
        scored("base", "0000 0000 1111", method="base", validation=()),
        scored("helpful", "1111 1111 0000", method="expert", validation=()),
        scored("honest", base, method="expert", validation=()),
        scored("harmless", base, method="expert", validation=()),
        scored("Fixed ratio", "1111 1111 1111", method="mixture", validation=()),
        scored("TIES", "0000 0000 0000", validation=(0.2, 0.9)),
        scored("TSV-M", "1111 1111 1111", validation=(0.3,)),
        scored("RESM", "1111 1111 1111", validation=(0.4,)),
    ]
    found = compare(records, PROBES)
    assert found
    assert found.chosen() == "TIES"
    assert found.rows() == ["TIES", "TSV-M", "RESM"]
    first, second, third = insights(found)
    assert [one.verdict for one in (first, second, third)] == ["confirmed", "refuted", "refuted"]
    assert "TIES against the mixtures' average: mean −100.0 (−100.0 to −100.0)" in second.found
    assert third.found.startswith("RESM against TSV-M +0.0 (+0.0 to +0.0)")
