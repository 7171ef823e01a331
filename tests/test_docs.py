"""README stays true: its tables are checked against the registry and the tree, its version against the pin."""

import re
from pathlib import Path

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
    for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / link).is_file(), link


def test_the_recipe_in_readme_is_sound():
    from merging.plan import check
    from merging.recipe import parse_recipe

    text = README.split("```yaml\n")[1].split("```")[0]
    assert check(parse_recipe(text, ROOT)).problems == ()
