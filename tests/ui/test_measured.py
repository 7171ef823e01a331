"""Which measurement a recipe names on the page."""

from dataclasses import replace
from pathlib import Path

from merging.methods import METHODS
from ui.measured import could_read_more, is_missing, with_measurement
from ui.session import Session, fresh_recipe, with_method


def session(family, method="regmean"):
    experts = ("helpful", "honest")
    recipe = fresh_recipe(METHODS["ties"], "base", experts, family)
    return with_method(Session(recipe, "0" * 32), method)


def test_it_is_named_by_models_and_stream(family, tmp_path):
    found = with_measurement(session(family), tmp_path).recipe.calibration
    assert found == with_measurement(session(family), tmp_path).recipe.calibration
    assert found != with_measurement(session(family, "regmean_pp"), tmp_path).recipe.calibration
    (family / "honest").rename(family / "old")
    (family / "harmless").rename(family / "honest")
    assert found != with_measurement(session(family), tmp_path).recipe.calibration, "another model in its place"


def test_one_by_a_files_texts_stays_named_and_goes_with_the_models(family, tmp_path):
    usual = with_measurement(session(family), tmp_path)
    named = f"{usual.recipe.calibration}-0123456789ab"
    own = replace(usual, recipe=replace(usual.recipe, calibration=named))
    assert with_measurement(own, tmp_path) is own
    assert with_measurement(with_method(own, "regmean_pp"), tmp_path).recipe.calibration != named


def test_it_is_missing_until_its_folder_is_there(family, tmp_path):
    asked = with_measurement(session(family), tmp_path)
    assert is_missing(asked.recipe)
    (tmp_path / "calibrations").mkdir()
    (tmp_path / "calibrations" / str(asked.recipe.calibration).rpartition("/")[2]).mkdir()
    assert not is_missing(asked.recipe)


def test_more_texts_may_be_read_after_the_first_ones_and_count_from_then_on(family, tmp_path):
    asked = with_measurement(session(family), tmp_path)
    first = Path(str(asked.recipe.calibration))
    assert not could_read_more(asked.recipe, tmp_path), "the first ones come first"
    first.mkdir(parents=True)
    assert could_read_more(asked.recipe, tmp_path)
    assert not could_read_more(with_method(asked, "tsv_m").recipe, tmp_path), "it merges by none"
    first.with_name(f"{first.name}-256").mkdir()
    assert with_measurement(asked, tmp_path) is asked, "named as it was"
    again = with_measurement(session(family), tmp_path).recipe
    assert again.calibration == f"{first}-256"
    assert not could_read_more(again, tmp_path)


def test_other_methods_and_own_measurements_are_left_alone(family, tmp_path):
    assert with_measurement(session(family, "tsv_m"), tmp_path).recipe.calibration is None
    assert not is_missing(session(family, "tsv_m").recipe)
    own = session(family)
    own = replace(own, recipe=replace(own.recipe, calibration="mine"))
    assert with_measurement(own, tmp_path) is own
