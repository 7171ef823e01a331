"""Writes docs/paper.md and docs/paper.svg from the records; nothing in them is written by hand."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from assets.town.mixtures import POOL
from assets.town.train import BATCH
from benchmarks.paper.rows import ROWS, Row
from benchmarks.paper.training import BASES, FULL, LORA, SEEDS
from eval.judging.probes import H, Probe
from eval.paper.insights import insights
from eval.paper.pairs import Pair, pairs
from eval.paper.picture import picture
from eval.paper.records import Record
from eval.paper.table import BOUND, DRAWS, Comparison, Group, compare, whole_units, widest

REPORT, PICTURE = "paper.md", "paper.svg"


def write_report(records: Sequence[Record], probes: Sequence[Probe], folder: Path) -> bool:
    """False, and nothing is written, while no unit is whole."""
    shown = widest(records)
    comparison, whole = compare(shown, probes), compare(records, probes)
    if comparison is None:
        return False
    waiting = sorted({record.row for record in records} - {record.row for record in shown})
    (folder / PICTURE).write_text(picture(comparison), encoding="utf-8")
    apart = [one for group in whole.seeds if (one := compare(_of(records, group), probes))] if whole else []
    (folder / REPORT).write_text(report(comparison, whole, apart, shown, waiting), encoding="utf-8")
    return True


def _of(records: Sequence[Record], group: Group) -> list[Record]:
    return [one for one in records if one.unit[:2] == group]


def report(
    comparison: Comparison, whole: Comparison | None, apart: Sequence[Comparison], records: Sequence[Record],
    waiting: list[str],
) -> str:  # fmt: skip
    """`whole` rests on the units that have every row, `apart` on those of each family and paradigm alone, `comparison`
    on `records`, which lack the rows `waiting`.
    """
    found = "\n".join(
        f"{i}. **{one.claim}** *{one.verdict.capitalize()}.* {one.found} Rule: {one.rule}\n"
        for i, one in enumerate(insights(comparison), 1)
    )
    return f"""# Mix data or merge models? The paper's comparison on Town

Written by `make paper` from `docs/paper.jsonl`; do not edit it. The question, the mixtures and the list of merges are
those of *Mix Data or Merge Models?* (arXiv 2502.06876; its list of twelve merges is our reading of the abstracts).
Town is a closed toy world of tiny models: what holds here need not hold on large ones, and the other way round.

{_basis(comparison)}{_waiting(waiting)}

## The three insights, as measured

{found}
## Scores

Share of 900 test probes passed, in hundredths, with 95 % intervals. Sorted by the mean of the three H; the minimum is
the least of the three. The last two columns are differences of the mean on the same probes and seeds. *{BOUND}* is no
model but the bound for choosing among the experts.

{scores(comparison)}

![Mean and minimum of every row]({PICTURE})
{_paired(whole)}{_paired_apart(whole, apart)}
## By family and paradigm: the mean

{_groups(comparison)}

## What was chosen on validation probes

{chosen(records)}

## How it was done

{_design(records)}
"""


def _basis(comparison: Comparison) -> str:
    cells = ", ".join(f"{family} {paradigm} {n}" for (family, paradigm), n in comparison.seeds.items())
    missing = [f"{f} {p}" for f in BASES for p in ("full", "lora") if (f, p) not in comparison.seeds]
    few = [n for n in comparison.seeds.values() if n < SEEDS]
    text = f"Training seeds behind each number, by family and paradigm: {cells}."
    if missing:
        text += f" **Not yet run: {', '.join(missing)}.**"
    if few:
        text += (f" **Fewer than {SEEDS} seeds in {len(few)} of them**: where there is one, the intervals know "
                 "nothing of the spread over seeds.")  # fmt: skip
    return text


def scores(comparison: Comparison) -> str:
    """Every row, with intervals and differences of the mean."""
    mixtures = comparison.rows("mixture")
    rows = []
    for part, row in ((part, row) for part, found in comparison.parts().items() for row in found):
        sides = [comparison.side(row, h).words() for h in H]
        gaps = [comparison.mean_gap(row, "TSV-M"), comparison.mean_gap(row, *mixtures)]
        rows.append([part, row, *sides, comparison.mean(row).words(),
                     comparison.worst(row).words(), *(gap.signed() for gap in gaps)])  # fmt: skip
    return _table(["", "row", *H, "mean", "minimum", "mean against TSV-M", "mean against the mixtures"], rows)


def _paired(comparison: Comparison | None) -> str:
    """Nothing where nothing was calibrated or routed."""
    if comparison is None or not comparison.rows("calibrated", "router"):
        return ""
    return f"""
## Calibrated merges and routing, pair by pair

{_basis(comparison)}
{differences(pairs(comparison))}
"""


def _paired_apart(whole: Comparison | None, apart: Sequence[Comparison]) -> str:
    """The calibrated merge with the best validation score and the router, in each family and paradigm alone."""
    rows = [row for row in (whole.chosen("calibrated"), *whole.rows("router")) if row] if whole else []
    if not rows:
        return ""
    found = [{(pair.row, pair.other): pair for pair in pairs(one)} for one in apart]
    asked = [two for two in found[0] if two[0] in rows]
    tables = {side: _table(["row", "against", *(" ".join(group) for one in apart for group in one.seeds)],
                           [[*two, *(getattr(each[two], side).words() for each in found)] for two in asked])
              for side in ("mean", "worst")}  # fmt: skip
    return f"""
### In each family and paradigm alone

Of the calibrated merge with the best validation score and of the router. Holm's correction is for all
{2 * len(found[0])} differences of one family and paradigm, those of the other calibrated merges among them.
The mean of the three H:

{tables["mean"]}

The minimum:

{tables["worst"]}
"""


def differences(found: Sequence[Pair]) -> str:
    """With what to make of them."""
    rows = [[pair.row, pair.other, pair.mean.words(), pair.worst.words()] for pair in found]
    return f"""Differences on the same probes and seeds with 95 % intervals. *Above* and *below*: p under 0.05 after
Holm's correction for all {2 * len(found)} differences of this table; *level*: the interval stays inside 2 points,
*level or above*: it stays above −2, *level or below*: under 2; else we cannot tell.

{_table(["row", "against", "mean", "minimum"], rows)}"""


def _waiting(rows: list[str]) -> str:
    return f" **In too few of them to be shown yet: {', '.join(rows)}.**" if rows else ""


def _groups(comparison: Comparison) -> str:
    head = [f"{family} {paradigm} ({n} seed{'s' * (n > 1)})" for (family, paradigm), n in comparison.seeds.items()]
    rows = [[row, *(f"{mean:.1f}" for mean in comparison.means[row].values())] for row in comparison.ordered()]
    return _table(["row", *head], rows)


def chosen(records: Sequence[Record], of_rows: Sequence[Row] = ROWS) -> str:
    """How often each setting won; what a grid does not vary is left out."""
    units = whole_units(records)
    of = {(record.row, record.unit): record for record in records}
    rows = []
    for row in of_rows:
        if (row.name, units[0]) in of and len(row.grid) > 1:
            varied = {key for setting in row.grid for key in setting.knobs
                      if len({str(other.knobs.get(key)) for other in row.grid}) > 1}  # fmt: skip
            won = Counter(_setting(of[row.name, unit].setting, varied) for unit in units)
            rows.append([row.name, str(len(row.grid)), "; ".join(f"{words} ({n})" for words, n in won.most_common())])
    return _table(["merge", "tries", "chosen (in so many units)"], rows)


def _setting(setting: dict, varied: set[str]) -> str:
    words = [f"{setting['texts']} texts"] if setting.get("texts") else []
    words += [f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
             for key, value in setting["knobs"].items() if key in varied]  # fmt: skip
    if len(set(setting["weights"])) > 1:
        words.append("shares " + " / ".join(f"{weight:g}" for weight in setting["weights"]))
    return ", ".join(words) or "equal shares"


def _design(records: Sequence[Record]) -> str:
    experts = ", ".join(f"{h} {FULL[h].steps}/{LORA[h].steps}" for h in H)
    mixture, minutes = FULL["mixture"].steps, sum(record.cpu_seconds for record in records) / 60
    return f"""- Two families of 1.3 million parameters on the same tokenizer and data: Town's Llama and a GPT-NeoX. The
  experts of a family share one base. The Llama's seed 0 full experts are those shipped with the app.
- Two paradigms: full fine-tuning, and LoRA of rank 8 on every matrix of the blocks.
  Steps full/LoRA: {experts}, mixtures {mixture}/{LORA["mixture"].steps}, of {BATCH} examples each.
  A mixture reads {mixture * BATCH:,} examples, fewer than the three experts together.
- Mixtures choose them from one pool of {POOL:g} times as many, a third from each expert's data: the first ones (fixed
  ratio); those whose answer a probe would pass (reward-scored: the reward is exact here, a model's in the paper); or
  those on which the trained experts' log-likelihoods differ least (low conflict).
- Merges: at most six settings each, the best by the mean over 360 validation probes, then 900 test probes once. The
  scale is always among them, but a weight average and a soup have none and Model Stock finds its own. Mixtures were
  not tuned. RESM's definition is reconstructed from abstracts; half of its tries emphasise layers with outliers.
- Calibrated merges read prompts of each expert's own skill, 64 to 1024, from the training side: no probe is among them.
  The expert answers them itself. They come from the world that the probes ask about, and they say which expert answers
  what: more than the data-free merges know, less than the mixtures, which read the experts' training data.
  Gains of 1024 texts were added after those of 256 had been scored on the same test probes; the number was chosen on
  validation probes of the Llama's seed 0 full experts.
  RegMean++ and its gains were measured in today's form on the Llama's seed 0 full experts only. In the other units
  the one tensor of embedding and head was merged before the layers, by what the experts' own heads read, which took a
  third reading of all texts; today it comes last, by what the heads read behind the merged layers. In that unit
  RegMean++ has 78.1 so and had 77.9, gains of 256 texts 84.0 and 83.6, of 1024 texts 86.6 and 87.0.
- The router reads the question with the base and gives it to one expert; fitted on 256 of those prompts each, untuned.
  It keeps the base and all three experts.
- The ranges of the grids come from earlier tuning on validation probes of the Llama's seed 0 full experts
  (`benchmarks/town_methods.md`), where RESM was tried most. A winner at the edge of its grid may not be its best.
- Intervals: a bootstrap over probe contents inside each H and over seeds inside each family and paradigm,
  {DRAWS} draws, the same for all rows. Each holds for itself, not for all of the table at once.
- Scoring and training of what is in the records took {minutes:.0f} CPU minutes, bases and shipped experts apart."""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))
