"""A recipe file is a mergekit config: reading it safely and writing it.

Knows the form of a recipe, not what its settings mean: names and ranges are checked against the method in `plan.py`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from merging.errors import UserError, all_of, placed
from merging.recipe_form import faults
from merging.recipe_stages import with_stages
from merging.safe_yaml import MAX_CHARACTERS, read_yaml
from merging.tokenizer_choice import TokenizerChoice, read_choice
from merging.values import Settings, plain_settings, read_settings
from merging.words import shown


@dataclass(frozen=True)
class Expert:
    """One entry of `models:`."""

    model: str
    parameters: Settings = ()

    @property
    def name(self) -> str:
        """What the screen calls it: the last part of its path or id, an adapter's where it has one."""
        last = self.model.rstrip("/").rsplit("/", 1)[-1]
        return last.rpartition("+")[2] or last


@dataclass(frozen=True)
class Source(Expert):
    """A model's part in a slice: its layers from `layers[0]` up to, not including, `layers[1]`."""

    layers: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Slice:
    """Some layers of the merge, made from as many layers of each source."""

    sources: tuple[Source, ...]
    parameters: Settings = ()


@dataclass(frozen=True)
class Lock:
    """Holds tensors to the base (`to: base`) or to one model; globs match whole tensor names of the merge."""

    to: str
    tensors: tuple[str, ...]
    but: tuple[str, ...] = ()  # `except:` in a file


@dataclass(frozen=True)
class Recipe:
    """A merge, as written down: hashable, comparable, round trips through mergekit's YAML.

    `experts` is the `models:` list as written (it may name the base); with `slices`, every model they name, once.
    `calibration` is a folder that a calibrated method needs. `stages` are merges that it uses as models by their
    `name`, each after those that it needs. `folder` is where relative model folders are looked for; it is no part of
    the recipe.
    """

    method: str
    base: str | None
    experts: tuple[Expert, ...]
    parameters: Settings = ()
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: str | None = None
    tokenizer: TokenizerChoice | None = None
    chat_template: str | None = None
    seed: int = 0
    name: str = ""
    note: str = ""
    folder: Path = Path()
    slices: tuple[Slice, ...] = ()
    locks: tuple[Lock, ...] = ()
    calibration: str | None = None
    stages: "tuple[Recipe, ...]" = ()

    def is_base(self, model: str) -> bool:
        """Whether an entry of `models:` is the base, however its folder is spelled."""
        return self.base is not None and os.path.normpath(model) == os.path.normpath(self.base)

    @property
    def beside_base(self) -> tuple[Expert, ...]:
        """The entries of `models:` that are not the base."""
        return tuple(expert for expert in self.experts if not self.is_base(expert.model))

    @property
    def vocabulary(self) -> TokenizerChoice | None:
        """What is said about the merge's tokens, in either of mergekit's two ways."""
        return self.tokenizer or (TokenizerChoice(self.tokenizer_source) if self.tokenizer_source else None)

    @property
    def sources(self) -> tuple[str, ...]:
        """Every model that it and its stages name, once each, its base first; stages themselves are none."""
        words = self.vocabulary.models if self.vocabulary else ()
        named = (self.base, *(expert.model for expert in self.experts), *words)
        below = [source for stage in self.stages for source in stage.sources]
        made = {stage.name for stage in self.stages}
        return tuple(dict.fromkeys(s for s in (*named, *below) if s and s not in made))

    def renamed(self, name: Callable[[str], str]) -> "Recipe":
        """The same merge with `name(model)` wherever a model is named."""
        made = {stage.name for stage in self.stages}

        def new(recipe: Recipe) -> Recipe:
            def one(model: str) -> str:
                return model if model in made else name(model)

            models = {recipe.base, *(expert.model for expert in recipe.experts)}
            speaker, choice = recipe.tokenizer_source, recipe.tokenizer
            return replace(
                recipe,
                base=recipe.base and one(recipe.base),
                experts=tuple(replace(expert, model=one(expert.model)) for expert in recipe.experts),
                slices=tuple(
                    replace(part, sources=tuple(replace(source, model=one(source.model)) for source in part.sources))
                    for part in recipe.slices
                ),
                locks=tuple(replace(lock, to=one(lock.to)) if lock.to in models else lock for lock in recipe.locks),
                tokenizer_source=speaker if speaker is None or speaker in ("base", "union") else one(speaker),
                tokenizer=choice and choice.renamed({model: one(model) for model in choice.models}),
            )

        return replace(new(self), stages=tuple(new(stage) for stage in self.stages))

    def to_yaml(self) -> str:
        """mergekit's YAML; a document a stage, and the recipe itself last."""
        return "---\n".join(recipe._document() for recipe in (*self.stages, self))

    def _document(self) -> str:
        document: dict[str, Any] = {"name": self.name, "note": self.note, "merge_method": self.method}
        document["base_model"] = self.base
        if self.slices:
            document["slices"] = [
                {"sources": [_entry(source) for source in part.sources], **_parameters(part.parameters)}
                for part in self.slices
            ]
        else:
            document["models"] = [_entry(expert) for expert in self.experts]
        document["parameters"] = plain_settings(self.parameters)
        for key in ("dtype", "out_dtype", "tokenizer_source", "chat_template", "seed", "calibration"):
            document[key] = getattr(self, key)
        document["tokenizer"] = self.tokenizer.plain() if self.tokenizer else None
        document["locks"] = [
            {"tensors": list(lock.tensors), **({"except": list(lock.but)} if lock.but else {}), "to": lock.to}
            for lock in self.locks
        ]
        return yaml.safe_dump(
            {
                key: value
                for key, value in document.items()
                if value not in (None, "", {}, []) and (key, value) != ("seed", 0)
            },
            sort_keys=False,
            allow_unicode=True,
            width=100,
        )


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file; relative folders in it are looked for beside the file."""
    where = shown(str(path), 200)[1:-1]
    try:
        if not path.is_file():
            do = "Give the path of a YAML file."
            raise UserError("E_RECIPE", "there is no such recipe file", where=where, do=do)
        if path.stat().st_size > 4 * MAX_CHARACTERS:
            raise UserError("E_RECIPE_SIZE", f"larger than {MAX_CHARACTERS:,} characters", where=where)
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError("E_RECIPE", "cannot be read as UTF-8 text", where=where) from error
    except OSError as error:
        raise UserError("E_RECIPE", f"cannot be read: {error.strerror}", where=where) from error
    return parse_recipe(text, path.resolve().parent)


def parse_recipe(text: str, folder: Path) -> Recipe:
    """Build a recipe from YAML text; every fault of form is listed in one UserError.

    Of several documents, one is the merge and the others are its stages, which it names as models.
    """
    documents = read_yaml(text) or [None]
    problems: list[UserError] = []
    for i, document in enumerate(documents, 1):
        place = f"document {i}" if len(documents) > 1 else ""
        if isinstance(document, dict):
            problems += [placed(fault, place) for fault in faults(document)]
        else:
            what = "a recipe is a mapping such as `merge_method: ties`"
            problems.append(UserError("E_RECIPE", what, where=place or "recipe"))
    if problems:
        raise all_of(problems, kept="")
    recipes = [_recipe(document, folder) for document in documents]
    return recipes[0] if len(recipes) == 1 else with_stages(recipes)


def _recipe(document: dict, folder: Path) -> Recipe:
    def word(key: str) -> str:
        return str(document.get(key) or "")

    base = document.get("base_model")
    slices = tuple(
        Slice(
            tuple(
                Source(str(s["model"]), read_settings(s.get("parameters")), (s["layer_range"][0], s["layer_range"][1]))
                for s in part["sources"]
            ),
            read_settings(part.get("parameters")),
        )
        for part in document.get("slices") or ()
    )
    experts = tuple(Expert(str(m["model"]), read_settings(m.get("parameters"))) for m in document.get("models") or ())
    if slices:
        experts = tuple(Expert(name) for name in dict.fromkeys(s.model for part in slices for s in part.sources))
    return Recipe(
        method=document["merge_method"],
        base=None if base is None else str(base),
        experts=experts,
        parameters=read_settings(document.get("parameters")),
        dtype=document.get("dtype"),
        out_dtype=document.get("out_dtype"),
        tokenizer_source=word("tokenizer_source") or None,
        tokenizer=read_choice(document["tokenizer"]) if document.get("tokenizer") is not None else None,
        chat_template=word("chat_template") or None,
        seed=document.get("seed", 0),
        name=word("name"),
        note=word("note"),
        folder=folder,
        slices=slices,
        locks=tuple(
            Lock(str(lock["to"]), _words(lock["tensors"]), _words(lock.get("except") or ()))
            for lock in document.get("locks") or ()
        ),
        calibration=word("calibration") or None,
    )


def _entry(expert: Expert) -> dict[str, Any]:
    layers = {"layer_range": list(expert.layers)} if isinstance(expert, Source) else {}
    return {"model": expert.model, **layers, **_parameters(expert.parameters)}


def _parameters(settings: Settings) -> dict[str, Any]:
    return {"parameters": plain_settings(settings)} if settings else {}


def _words(value: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
