"""The files beside the weights: all that a merge needs to begin and to end an answer, and no code."""

import json

import pytest

from merging.companions import companions, ending_tokens, has_template
from merging.errors import UserError
from merging.plan import make_plan
from merging.recipe import parse_recipe

RECIPE = "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: helpful}, {model: honest}]\n"


def beside(family, more=""):
    return companions(make_plan(parse_recipe(RECIPE + more, family)))


def change(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_list_of_ending_tokens_stays_a_list(family):
    change(family / "base" / "generation_config.json", eos_token_id=[2, 7], temperature=0.6)
    made = beside(family)
    assert json.loads(made.files["generation_config.json"]) == {
        "bos_token_id": 1, "eos_token_id": [2, 7], "temperature": 0.6}  # fmt: skip
    assert ending_tokens(made.files) == {2, 7}
    assert made.notices == ()


def test_without_a_generation_config_it_is_made_of_the_config(family):
    (family / "base" / "generation_config.json").unlink()
    assert json.loads(beside(family).files["generation_config.json"]) == {"bos_token_id": 1, "eos_token_id": 2}
    config = json.loads((family / "base" / "config.json").read_text())
    del config["eos_token_id"]
    (family / "base" / "config.json").write_text(json.dumps(config))
    assert "generation_config.json" not in beside(family).files


def test_the_ends_come_from_the_model_that_gives_the_tokenizer(family):
    change(family / "honest" / "generation_config.json", eos_token_id=[5, 6])
    change(family / "honest" / "config.json", eos_token_id=5)
    found = beside(family)
    assert ending_tokens(found.files) == {2}
    assert found.notices == (
        "honest ends its answers with token 5, 6, which does not end those of the merge. "
        "Write `tokenizer_source: honest` to take its tokenizer, template and ends.",)  # fmt: skip
    taken = beside(family, "tokenizer_source: honest\n")
    assert ending_tokens(taken.files) == {5, 6}
    assert json.loads(taken.files["config.json"])["eos_token_id"] == 5


@pytest.mark.parametrize("place", ["file", "config", "named", "old", "recipe"])
def test_wherever_a_template_lies_it_is_taken_along(family, place):
    folder, text, more = family / "base", "T {{ messages }}", ""
    (folder / "chat_template.jinja").unlink()
    if place == "file":
        (folder / "chat_template.jinja").write_text(text)
    elif place == "config":
        change(folder / "tokenizer_config.json", chat_template=text)
    elif place == "named":
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "tool_use.jinja").write_text(text)
    elif place == "old":
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": text}))
    else:
        more = f"chat_template: '{text}'\n"
    made = beside(family, more)
    assert has_template(made.files)
    assert made.notices == ()
    where = {"config": "tokenizer_config.json", "named": "additional_chat_templates/tool_use.jinja"}
    assert text in made.files[where.get(place, "chat_template.jinja")].decode()


def test_a_template_that_only_an_expert_has_is_told(family):
    (family / "base" / "chat_template.jinja").unlink()
    (family / "honest" / "chat_template.jinja").unlink()
    [notice] = beside(family).notices
    assert "base has no chat template, so the merge has none; helpful has one" in notice
    (family / "helpful" / "chat_template.jinja").unlink()
    assert beside(family).notices == ()


def test_configs_no_longer_point_to_code(family):
    change(family / "base" / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Tokenizer", None]})
    found = json.loads(beside(family).files["tokenizer_config.json"])
    assert "auto_map" not in found
    assert found["eos_token"] == "</s>"


@pytest.mark.parametrize("name", ["tokenizer.json", "additional_chat_templates/a.jinja", "generation_config.json"])
def test_a_file_that_leads_outside_is_refused(family, name):
    path = family / "base" / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="leads outside") as raised:
        beside(family)
    assert raised.value.where == f"base/{name}"


@pytest.mark.parametrize("text", ["{", "[]", '{"chat_template": 3}', '{"chat_template": "a", "chat_template": "b"}'])
def test_an_old_template_file_that_holds_none_is_refused(family, text):
    (family / "base" / "chat_template.jinja").unlink()
    (family / "base" / "chat_template.json").write_text(text)
    with pytest.raises(UserError, match="holds no chat_template"):
        beside(family)
    assert beside(family, "chat_template: 'x {{ messages }}'\n").files["chat_template.jinja"]
