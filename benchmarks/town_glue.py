"""Nine experts of one base, three training seeds of each of Town's: clustered, then merged, fitted or routed across.

    python -m benchmarks.town_glue

Writes benchmarks/town_glue.md. As in `make paper`: settings chosen on validation probes, all scored once on test
probes, beside the merges of three experts in `docs/paper.jsonl`. Experts that the data folder lacks are trained first.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.paper.calibrating import Calibrations
from benchmarks.paper.report import chosen, differences, scores
from benchmarks.paper.rows import ROUTER, ROWS
from benchmarks.paper.training import SEEDS, Trainer, Unit
from benchmarks.paper.unit import passed, record_of, settle, town_probes, tuned
from eval.calibrating.router import fit_router
from eval.calibrating.texts import ROUTED, answer, read_for, read_texts
from eval.judging.probes import H
from eval.paper.pairs import paired
from eval.paper.records import Record, of_unit, read_records
from eval.paper.table import compare
from eval.running.models import Models
from eval.scoring.runs import data_folder
from eval.searching.glue import Glued, Grouped, Joined, glue_by
from eval.searching.scoring import ladder, merge_scores
from merging.plan import make_plan, members
from merging.recipe import Expert, Recipe, parse_recipe

RESULTS = Path(__file__).with_suffix(".md")
SHIPPED = Unit("llama", "full", 0)
ROWS_ACROSS = [row for row in ROWS if row.name in ("TSV-M", "RegMean", "RegMean++", "Output fit")]
FLAT, WHOLE, GROWN, SOUP = "of all nine", "across whole clusters", "across grown clusters", "Greedy soup of all nine"
_DRAWS = 20_000  # p-values must be fine enough for so many differences


def nine(folder: Path) -> Recipe:
    """The sum of all experts, each by a name of its own in `folder`."""
    experts = [(f"{h}-{seed}", Trainer(Unit("llama", "full", seed), data_folder() / "paper").expert(h))
               for h in H for seed in range(SEEDS)]  # fmt: skip
    for name, expert in experts:
        (folder / name).symlink_to(expert)
    models = tuple(Expert(str(folder / name)) for name, _ in experts)
    return Recipe("task_arithmetic", str(SHIPPED.base), models, (("lambda", 1.0),), folder=folder)


def write_prompts(path: Path) -> None:
    """Town's for each expert; each seed begins at another third of them, so that a cluster reads none twice."""
    third, lines = ceil(ROUTED / SEEDS), []
    for h, own in zip(H, read_texts("town", H, ROUTED), strict=True):
        for seed in range(SEEDS):
            turned = own[seed * third :] + own[: seed * third]
            lines += [text.model_copy(update={"expert": f"{h}-{seed}"}).model_dump_json() for text in turned]
    path.write_text("\n".join(lines))


def glued(made: Recipe, said: list[str], least: float = 0.3, grows: bool = True) -> Recipe:
    """What `python -m eval glue` makes of a recipe; what it found is appended to `said`."""
    for event in glue_by(made, least, ladder("town")[-2] if grows else None, merge_scores("cpu")):
        if isinstance(event, Grouped):
            said.append("Clusters: " + " | ".join(", ".join(group) for group in event.clusters))
        elif isinstance(event, Joined):
            was, now = (f"{100 * mean:.1f}" for mean in (event.before, event.after))
            said.append(f"{event.expert} {'joins' if event.kept else 'is left out'}: mean {was} to {now}")
        elif isinstance(event, Glued):
            return parse_recipe(event.recipe, made.folder)
    raise AssertionError("glue ends with its recipe")


def across(made: Recipe, where: str, models: Models, folder: Path) -> Iterator[Record]:
    """The recipe's experts, which may be clusters: merged by each method, then routed."""
    probes, (base, *experts) = town_probes(), members(made)
    prompts = str(folder.parent / "prompts.jsonl")

    def write(log: Path) -> None:
        for _ in answer(models, experts, read_for(prompts, experts, ROUTED), log):
            pass

    folder.mkdir()
    calibrations = Calibrations(folder, write)
    for row in ROWS_ACROSS:
        began, plans = time.process_time(), []
        for setting in row.grid:
            own = replace(made, method=row.method, parameters=tuple(setting.knobs.items()))
            plans.append(make_plan(calibrations.of(own, setting.texts) if setting.texts else own))
        yield tuned(SHIPPED, replace(row, name=f"{row.name} {where}"), plans, models, probes, began)
    began, each = time.process_time(), ceil(ROUTED * len(H) / len(experts))
    asked = {str(t): [text.question() for text in own] for t, own in enumerate(read_for(prompts, experts, each))}
    routes = fit_router(models.model(base), asked).routes([probe.conversation() for probe in probes.test.probes])
    said = [passed(models, expert, probes.test) for expert in experts]
    result = [said[int(route.expert)][i] for i, route in enumerate(routes)]
    yield record_of(SHIPPED, f"{ROUTER} {where}", "router", {"texts": each}, [], result, began)


def scored(folder: Path, said: dict[str, list[str]]) -> Iterator[Record]:
    """A record for each row; `said` gets what glue said of each way of grouping."""
    models, test, all_nine = Models("cpu"), town_probes().test, nine(folder)
    write_prompts(folder / "prompts.jsonl")
    whole = glued(all_nine, said.setdefault(WHOLE, []), grows=False)
    grown = glued(all_nine, said.setdefault(GROWN, []))
    soup = make_plan(glued(all_nine, said.setdefault(SOUP, []), least=-1.0))
    sources = [(expert.name, one) for expert, one in zip(all_nine.experts, members(all_nine)[1:], strict=True)]
    sources += zip(H, members(whole)[1:], strict=True)  # under these names they give the bound
    for name, one in sources:
        began = time.process_time()
        yield record_of(SHIPPED, name, "expert", {}, [], passed(models, one, test), began)
    began = time.process_time()
    yield record_of(SHIPPED, SOUP, "task_arithmetic", {}, [], passed(models, soup, test), began)
    for made, where in ((all_nine, FLAT), (whole, WHOLE), (grown, GROWN)):
        yield from across(made, where, models, folder / where)


def main() -> None:
    settle()
    unit, said = (SHIPPED.family, SHIPPED.paradigm, SHIPPED.seed), dict[str, list[str]]()
    beside = {"mixture", "router", *(row.method for row in ROWS_ACROSS)}
    records = [one for one in of_unit(read_records(), unit) if one.method in beside]
    with TemporaryDirectory() as name:
        for one in scored(Path(name), said):
            records.append(one)
            print(f"{one.row}: {one.cpu_seconds:.0f} s", flush=True)
    comparison = compare(records, town_probes().test.probes, _DRAWS)
    assert comparison
    ours = [row for where in (WHOLE, GROWN) for row in comparison.ordered() if row.endswith(where)]
    rivals = [f"TSV-M {FLAT}", f"RegMean++ {FLAT}", f"{ROUTER} {FLAT}", SOUP]
    rows = [replace(row, name=f"{row.name} {where}") for where in (FLAT, WHOLE, GROWN) for row in ROWS_ACROSS]
    steps = "\n".join(f"- *{where}*. {'; '.join(lines)}." for where, lines in said.items())
    seconds = sum(one.cpu_seconds for one in records if one.row not in {old.row for old in read_records()})
    RESULTS.write_text(f"""# Nine experts, clustered, then merged, fitted or routed across

Made by `python -m benchmarks.town_glue`: `python -m eval glue` on three training seeds of each of Town's experts
(`helpful-0` and so on; seed 0 ships). *Whole clusters* average all their members (`--all`), *grown* ones only those
that do not make the mean worse; rows *{FLAT}* know no clusters. The rows *helpful*, *honest* and *harmless* are the
whole clusters themselves, and the bound is theirs. Rows without such a word are of the three experts that ship, from
`docs/paper.jsonl`. Settings by the mean over 360 validation probes, on which clusters grow too; then 900 test probes
once. Each expert reads 64 or 256 prompts of its own skill, a cluster as many in equal parts of its members; a router
is fitted on 256 a skill, each expert's share of them its own.
{seconds / 60:.0f} CPU minutes.

What is toy: the nine know three skills, clusters are training seeds of one recipe, models have 1.3 million parameters
and the world is closed. Experts of different makers, which Model-GLUE is for, are not among them. There is one set of
nine: the intervals know nothing of other sets.

{steps}

{scores(comparison)}

## Pair by pair

{differences(paired(comparison, [(row, other) for row in ours for other in rivals]))}

## What was chosen

{chosen(records, rows)}
""", encoding="utf-8")  # fmt: skip
    print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
