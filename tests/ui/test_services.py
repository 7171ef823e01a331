"""Which probes a recipe's models are asked, whatever the form of the recipe."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from merging.recipe import parse_recipe
from ui.scores import STANDARD, TOWN
from ui.services import exams_of

ROOT = Path(__file__).resolve().parents[2]
PLAIN = "merge_method: linear\nmodels: [{model: MODEL}]\n"
SLICED = "merge_method: passthrough\nslices: [{sources: [{model: MODEL, layer_range: [0, 2]}]}]\n"
STAGED = (
    "name: first\nmerge_method: linear\nmodels: [{model: MODEL}]\n---\nmerge_method: linear\nmodels: [{model: first}]\n"
)


@pytest.mark.parametrize("form", [PLAIN, SLICED, STAGED])
def test_models_with_towns_words_are_asked_about_town_and_others_are_not(family, form):
    services = SimpleNamespace(town=ROOT / "assets" / "town")
    town, other = (
        parse_recipe(form.replace("MODEL", os.path.relpath(model, family)), family)
        for model in (ROOT / "assets" / "town" / "honest", family / "honest")
    )
    assert exams_of(services, town) is TOWN
    assert exams_of(services, other) is STANDARD
