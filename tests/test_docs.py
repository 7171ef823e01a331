"""README and docs/ stay true: held against the registry, the tree, the pinned version and the command lines."""

import argparse
import re
from pathlib import Path

import pytest

import eval.__main__
import merging.__main__
from merging.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(name: str) -> list[str]:
    return README.split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->")[0].splitlines()


def method_rows() -> list[str]:
    rows = ["| id | method | what it does | paper |", "|---|---|---|---|"]
    for method in METHODS.values():
        paper = f"[{method.paper.title}]({method.paper.url}), {method.paper.year}"
        rows.append(f"| `{method.id}` | {method.title} | {method.summary} | {paper} |")
    return rows


def test_the_method_table_lists_every_method_as_it_describes_itself():
    assert section("methods") == method_rows(), "Put these lines between the marks:\n" + "\n".join(method_rows())


def test_the_file_map_names_every_module_with_its_first_line():
    listed = {line.split("`")[1] for line in section("files") if line.startswith("- `")}
    folders = [p for name in ("merging", "eval", "ui", "assets", "benchmarks") for p in [ROOT / name]]
    expected = {f"{folder.name}/" for folder in folders} | {"app.py", "tests/"}
    assert listed == expected


def test_the_space_runs_the_pinned_gradio():
    pinned = re.search(r"^gradio==(\S+)$", (ROOT / "requirements.txt").read_text(), re.M)
    named = re.search(r"^sdk_version: (\S+)$", README, re.M)
    assert pinned
    assert named
    assert pinned.group(1) == named.group(1)


def test_every_file_and_picture_that_readme_names_is_there():
    for link in re.findall(r"\]\(([^):]+)\)", README):
        assert (ROOT / link).is_file(), link


@pytest.mark.parametrize("program", [merging.__main__, eval.__main__])
def test_the_page_on_the_command_line_has_every_command_and_no_option_that_is_not_there(program):
    name = program.__name__.split(".")[0]
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    lines = re.findall(rf"^python -m {name} (\w+)(.*)$", page, re.M)
    subparsers = next(a for a in program._parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert {command for command, _ in lines} == set(subparsers.choices)
    for command, words in lines:
        assert set(re.findall(r"--[a-z-]+", words)) <= set(subparsers.choices[command]._option_string_actions), command


def test_the_recipe_in_readme_is_sound():
    from merging.plan import check
    from merging.recipe import parse_recipe

    text = README.split("```yaml\n")[1].split("```")[0]
    assert check(parse_recipe(text, ROOT)).problems == ()
