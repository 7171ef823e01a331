"""Which measurement a recipe names on the page."""

import json
from dataclasses import replace
from pathlib import Path

from merging.methods import METHODS
from ui.measured import file_of, is_missing, measured_by, next_step, own_file, texts_read, with_measurement
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
    named = str(measured_by(usual.recipe, tmp_path, Path("0123456789ab.jsonl"), 64))
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
    assert next_step(asked.recipe, tmp_path) == 0, "the first ones come first"
    for each, then in ((64, 256), (256, 1024), (1024, 0)):
        made = measured_by(asked.recipe, tmp_path, None, each)
        made.mkdir(parents=True)
        assert with_measurement(asked, tmp_path) is asked, "named as it was"
        again = with_measurement(session(family), tmp_path)
        assert again.recipe.calibration == str(made)
        assert next_step(again.recipe, tmp_path) == then
        assert next_step(with_method(again, "tsv_m").recipe, tmp_path) == 0, "it merges by none"


def written(path, **counts):
    lines = [{"expert": name, "text": f"{name} {i}"} for name, n in counts.items() for i in range(n)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_of_a_visitors_file_more_is_read_as_far_as_it_has_more(family, tmp_path):
    usual = with_measurement(session(family), tmp_path)
    cases = (({"helpful": 257, "honest": 1}, [256, 1024, 0]), ({"helpful": 65, "honest": 1}, [256, 0, 0]),
             ({"helpful": 64, "honest": 3, "other": 99}, [0, 0, 0]))  # fmt: skip
    for counts, steps in cases:
        given = written(tmp_path / "given.jsonl", **counts)
        kept, text = own_file(tmp_path, given), given.read_text()
        given.unlink()
        assert kept.read_text() == text
        for each, then in zip((64, 256, 1024), steps, strict=True):
            folder = measured_by(usual.recipe, tmp_path, kept, each)
            folder.mkdir()
            made = replace(usual.recipe, calibration=str(folder))
            assert file_of(made, tmp_path) == kept
            assert next_step(made, tmp_path) == then


def test_it_says_how_many_texts_were_read(family, tmp_path):
    asked = with_measurement(session(family), tmp_path).recipe
    assert texts_read(asked) == "", "not made yet"
    made = Path(str(asked.calibration))
    made.mkdir(parents=True)
    written(made / "texts.jsonl", helpful=7, honest=7)
    assert texts_read(asked) == "Measured on 7 texts of each expert."
    written(made / "texts.jsonl", helpful=7, honest=2)
    assert texts_read(asked) == "Measured on 7 texts of helpful and 2 texts of honest."
    assert texts_read(replace(asked, method="ties")) == "", "it merges by none"


def test_other_methods_and_own_measurements_are_left_alone(family, tmp_path):
    assert with_measurement(session(family, "tsv_m"), tmp_path).recipe.calibration is None
    assert not is_missing(session(family, "tsv_m").recipe)
    own = session(family)
    own = replace(own, recipe=replace(own.recipe, calibration="mine"))
    assert with_measurement(own, tmp_path) is own
