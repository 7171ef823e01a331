"""The model card: the Hub's fields, and nothing that escapes from a file into it."""

import pytest
import yaml

from merging.card import card, plain
from merging.events import Reloaded
from merging.plan import make_plan
from merging.recipe import parse_recipe

RECIPE = "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: helpful}, {model: honest}]\n"
HOSTILE = "x\n---\nlicense: mit\n---\n# <script>alert(1)</script> [a](javascript:b) `c` ![d](http://e) | f"


def test_front_matter_is_what_the_hub_reads(family):
    text = card(make_plan(parse_recipe(RECIPE, family)), "town")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front == {
        "base_model": ["base", "helpful", "honest"], "base_model_relation": "merge", "license": "unknown",
        "library_name": "transformers", "pipeline_tag": "text-generation",
        "tags": ["merge", "mergekit", "mergescope"]}  # fmt: skip
    assert "not loaded again" in text
    assert "python -m merging merge mergescope.yml OUT/" in text


@pytest.mark.parametrize(
    ("licences", "fields", "words"),
    [
        (("mit", "llama3.1", "apache-2.0"), {"license": "llama3.1"}, "Built with Llama"),
        (("qwen", "mit", "apache-2.0"), {"license": "other", "license_name": "qwen"}, "Built with Qwen"),
        (("mit", None, "mit"), {"license": "unknown"}, "advice): licence unknown for 1 of 3 models"),
        (("mit", "our <own> terms", "mit"), {"license": "other", "license_name": "our-<own>-terms"}, "&lt;own&gt;"),
        (("gemma", "llama3.1", "mit"), {"license": "llama3.1"}, "gemma and llama3.1 clash"),
    ],
)
def test_the_strictest_licence_of_the_sources_is_the_merges(family, licences, fields, words):
    for name, licence in zip(("base", "helpful", "honest"), licences, strict=True):
        (family / name / "README.md").write_text("" if licence is None else f"---\nlicense: {licence}\n---\n")
    text = card(make_plan(parse_recipe(RECIPE, family)), "town")
    front = yaml.safe_load(text.split("---\n")[1])
    assert {key: front[key] for key in front if key.startswith("license")} == fields
    assert f"| base | — | {licences[0]} |" in text
    assert words in text.split("## Licence\n")[1].split("\n## ")[0]


def test_what_was_tested_and_scored_is_told(family):
    tested = Reloaded(7, 7, 0.0, 0.01, 3, 3, True, True, 1.0)
    scores = {"helpful": (0.915, 0.88, 0.94, 300)}
    text = card(make_plan(parse_recipe(RECIPE, family)), "town", tested, scores)
    assert "- A chat turn with its chat template ends by itself." in text
    assert "| helpful | 91.5 % | 88 to 94 % | 300 |" in text


def test_nothing_of_a_recipe_becomes_markup(family):
    recipe = parse_recipe(RECIPE + f"name: {yaml.safe_dump(HOSTILE)}\nnote: '````'\n", family)
    text = card(make_plan(recipe), "town")
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "unknown"
    title = next(line for line in text.splitlines() if line.startswith("# "))
    assert "<script>" not in title
    assert r"\[a\](javascript:b) \`c\` \!\[d\]" in title
    assert "`````yaml" in text  # a fence longer than any inside


def test_text_stays_itself():
    assert plain("a_b | <i>\n&") == r"a\_b \| &lt;i&gt; &amp;"
