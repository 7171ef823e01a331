"""What `check` tells: every model's passport, what sets it apart from the base, licences, problems, costs."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from merging.checkpoint import bytes_to_download
from merging.errors import UserError
from merging.licences import strictest
from merging.models import open_model
from merging.passport import Passport, differences, misfits, passport
from merging.plan import Checked
from merging.recipe import Recipe
from merging.words import large


@dataclass(frozen=True)
class Report:
    models: tuple[Passport, ...]  # the base first
    differences: tuple[tuple[str, tuple[str, ...]], ...]  # from the base: a model's source, and a phrase each
    licence: str
    licence_words: str
    problems: tuple[UserError, ...]
    notices: tuple[str, ...]
    checked: Checked
    download_bytes: int


def report(recipe: Recipe, checked: Checked) -> Report:
    """Passports of all models of a recipe that can be opened; headers and small files alone are read."""
    opened = {}
    for source in recipe.sources:
        try:
            opened[source] = open_model(source, recipe.folder, base=recipe.base)
        except UserError:  # it is among the problems already
            continue
    models = {source: passport(model) for source, model in opened.items()}
    base = recipe.base if recipe.base in opened else next(iter(opened), None)
    apart = tuple(
        (source, differences(models[base], models[source], misfits(opened[base], model)))
        for source, model in opened.items()
        if base and source != base
    )
    found = strictest([model.licence for model in models.values()]) if models else ("", "")
    problems = tuple(part for problem in checked.problems for part in problem.parts or (problem,))
    return Report(tuple(models.values()), apart, *found, problems, checked.notices, checked,
                  bytes_to_download(opened.values()))  # fmt: skip


def as_json(found: Report) -> dict[str, Any]:
    """One object with everything; the estimate's fields stand at the top, and are absent where there is a problem."""
    plan = found.checked.plan
    costs: dict[str, Any] = {}
    if plan is not None:
        costs = {"method": plan.method.id, "n_experts": len(plan.experts), "n_tensors": len(plan.tensors)}
        costs |= asdict(plan.estimate)
    return {
        "event": "checked", **costs, "models": [asdict(model) for model in found.models],
        "differences": {source: list(phrases) for source, phrases in found.differences},
        "licence": {"id": found.licence, "words": found.licence_words},
        "problems": [problem.to_dict() for problem in found.problems], "notices": list(found.notices),
    }  # fmt: skip


def lines(found: Report) -> Iterator[str]:
    """The same for people, problems and costs left out."""
    yield from _table(found.models)
    for source, phrases in found.differences:
        yield f"{_name(source)}: {'; '.join(phrases) if phrases else 'fits the base'}."
    for model in found.models:
        if not model.eos_agree:
            ends, talk = (", ".join(map(str, ids)) for ids in (model.eos, model.eos_generation))
            yield f"{_name(model.source)}: config.json ends at token {ends}, generation_config.json at {talk}."
        if model.adapter:
            one = model.adapter
            yield (f"{_name(model.source)}: a {one.kind} adapter of {one.base or 'a base it does not name'}, rank "
                   f"{one.rank}, alpha {one.alpha:g}, {large(one.parameters)} parameters.")  # fmt: skip
    if found.download_bytes:
        yield f"To download first: {found.download_bytes / 1e6:,.1f} MB."
    if found.models:
        yield f"Strictest licence: {found.licence_words}"


def fix_lines(found: Report) -> Iterator[str]:
    for i, problem in enumerate(found.problems, 1):
        if problem.fix:
            number = f" of problem {i}" if len(found.problems) > 1 else ""
            yield f"Fix{number}: {problem.fix.label}."


def _table(models: tuple[Passport, ...]) -> Iterator[str]:
    head = ("model", "type", "parameters", "dtype", "layers", "width", "rows", "tokens", "tokenizer", "template",
            "ends at", "licence", "commit")  # fmt: skip
    rows = [head, *(_row(model) for model in models)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if models else ():
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(model: Passport) -> tuple[str, ...]:
    dtypes = [f"{name} {100 * share:.0f} %" if len(model.dtypes) > 1 else name for name, share in model.dtypes]
    cells = (
        _name(model.source), model.model_type, large(model.parameters) + (" tied" if model.tied else ""),
        ", ".join(dtypes), model.layers, model.hidden_size, model.vocab_rows, model.tokens, model.tokenizer,
        model.template, ", ".join(map(str, model.eos_generation or model.eos)), model.licence,
        model.commit and model.commit[:8],
    )  # fmt: skip
    return tuple("-" if cell in (None, "") else str(cell) for cell in cells)


def _name(source: str) -> str:
    """The last parts of a long path."""
    text = "".join(c if c.isprintable() else "?" for c in source)
    return text if len(text) <= 40 else f"…{text[-39:]}"
