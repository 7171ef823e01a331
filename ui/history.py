"""Merges of the models on the desk that were scored before, and the way back to them. Knows nothing of Gradio."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import yaml

from eval.judging.probes import Exam
from eval.scoring.score import recall
from eval.scoring.tries import Try, tries
from merging.events import to_json
from merging.methods import METHODS
from merging.plan import make_plan, open_models
from merging.recipe import Expert, Recipe, parse_recipe
from merging.sources import absolute
from merging.view import stored
from ui.measured import is_missing
from ui.scores import Scoreboard, with_scored
from ui.session import Session, desk_of, recipe_of

_NOWHERE = Path("/")  # a kept recipe spells its folders out


def tried(session: Session, exam: Exam) -> list[Try]:
    """What was tried of the family on the desk, also with other settings, methods and fewer experts."""
    first, *experts = fingerprints(session)
    return tries(first, experts, exam.asked)


def fingerprints(session: Session) -> list[str]:
    """Of the base, then of every expert on the desk."""
    recipe = session.recipe
    base = recipe.base and absolute(recipe.base, recipe.folder)
    sources = [source for source in (base, *(expert.model for expert in recipe.experts)) if source]
    return [stored(one).fingerprint for one in open_models(sources, base, recipe.folder, recipe.stages)]


def recalled(session: Session, digest: str, exam: Exam) -> Scoreboard | None:
    """The kept scores of the merge on the desk and of its sources; None where not all are, or it is another by now."""
    if is_missing(session.recipe):
        return None
    plan = make_plan(recipe_of(session))
    board = Scoreboard(exam)
    for scored in recall(plan, exam) if plan.digest == digest else ():
        board = with_scored(board, to_json(scored))
    return board if board.scores else None


def words(one: Try) -> str:
    """What a try is called: its recipe's name, or method and numbers, and weights that are not 1."""
    recipe = _read(one.recipe)
    method = METHODS.get(recipe.method)
    if method is None:  # of another version of Mergescope
        return recipe.method
    said = desk_of(recipe)
    shown = [(k.label, said.knobs[k.key]) for k in method.numbers(dict(recipe.parameters)) if not k.per_expert]
    numbers = [f"{'λ' if 'λ' in name else name.lower()} {value:g}" for name, value in shown if isinstance(value, float)]
    numbers += [f"seed {recipe.seed}"] if method.random else []
    weights = said.per_expert.get("weight", ())
    if any(weight != 1 for weight in weights):
        numbers.append(f"weights {' / '.join(f'{weight:g}' for weight in weights)}")
    return ", ".join([recipe.name or method.title.split(" (")[0], *numbers[:5]])


def again(session: Session, text: str) -> Recipe:
    """The recipe of a try, YAML with absolute folders, with the models spelled as on the desk.

    Where its method takes fewer experts than there are, the others stay on the desk with weight 0.
    """
    desk = session.recipe
    spelled = {absolute(source, desk.folder): source for source in desk.sources}
    recipe = replace(_read(text).renamed(lambda source: spelled.get(source, source)), folder=desk.folder)
    method = METHODS.get(recipe.method)
    if method is None or method.experts[1] - method.base_first >= len(desk.experts):
        return recipe
    mine = {expert.model: expert for expert in recipe.experts}
    experts = tuple(mine.get(e.model, replace(e, parameters=(("weight", 0.0),))) for e in desk.experts)
    return replace(recipe, experts=experts, stages=desk.stages)


def differences(a: Try, b: Try) -> list[tuple[str, str, str]]:
    """What differs between two recipes: a setting, its value in each; `–` where it is not written."""
    first, second = _settings(a), _settings(b)
    names = [name for name in first | second if first.get(name) != second.get(name)]
    return [(name, first.get(name, "–"), second.get(name, "–")) for name in names]


def _settings(one: Try) -> dict[str, str]:
    document = yaml.safe_load(_read(one.recipe).renamed(lambda source: Expert(source).name).to_yaml())
    flat = {key: value for key, value in document.items() if key not in ("name", "note", "models", "parameters")}
    flat |= document.get("parameters", {})
    for model in document.get("models", ()):
        flat |= {
            f"{model['model']}: {key}": value for key, value in ({"": "merged"} | model.get("parameters", {})).items()
        }
    return {name.removesuffix(": "): str(value) for name, value in flat.items()}


@lru_cache(maxsize=500)
def _read(text: str) -> Recipe:
    return parse_recipe(text, _NOWHERE)
