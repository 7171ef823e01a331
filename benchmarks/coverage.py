"""How often the board's intervals hold what they promise, on simulated models whose true rates are known.

python -m benchmarks.coverage
"""

import math

import numpy as np

from eval.scoring.stats import paired_difference, wilson

CLUSTERS, WORDINGS = 90, 2  # contents asked about, wordings of each
SKILL = 0.45  # of the better model, in standard deviations
TRUE = 0.5 * math.erf(SKILL / math.sqrt(2))  # by how much it then passes more probes than an average one


def simulate(runs: int, seed: int = 0) -> tuple[float, float]:
    """Share of 95 % intervals that hold the true difference of two models; share of "different" between equal ones.

    Half of what decides a probe is common to the wordings of one content and to all models.
    """
    rng = np.random.default_rng(seed)
    names = [str(i // WORDINGS) for i in range(CLUSTERS * WORDINGS)]
    covered = alarms = 0
    for _ in range(runs):
        content = np.repeat(rng.standard_normal(CLUSTERS), WORDINGS)
        better, worse, same = ((content + rng.standard_normal(len(content))) / math.sqrt(2) for _ in range(3))
        gap = paired_difference(list(better < SKILL), list(worse < 0), names)
        null = paired_difference(list(worse < 0), list(same < 0), names)
        covered += gap.low <= TRUE <= gap.high
        alarms += null.low > 0 or null.high < 0
    return covered / runs, alarms / runs


def main() -> None:
    rng = np.random.default_rng(0)
    for n, rate in ((60, 0.5), (80, 0.8), (300, 0.5), (300, 0.9)):
        found = [wilson(int(passed), n) for passed in rng.binomial(n, rate, size=2000)]
        held = np.mean([one.low <= rate <= one.high for one in found])
        print(f"share of {n} probes, true rate {rate:.0%}: the interval holds it in {held:.1%} of 2,000 runs")
    covered, alarms = simulate(2000)
    print(f"difference on {CLUSTERS} contents in {WORDINGS} wordings: held in {covered:.1%}; false alarms {alarms:.1%}")


if __name__ == "__main__":
    main()
