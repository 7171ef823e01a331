from merging.recipe import Expert, Recipe
from ui.panels.recipe import command_html


def test_the_commands_score_a_merge_by_the_probes_that_the_page_asks():
    recipe = Recipe("ties", "base", (Expert("honest"),), name="My merge")
    lines = "python -m merging check my-merge.yml\npython -m eval export my-merge.yml merged/my-merge\n"
    assert f"<pre>{lines}python -m eval score merged/my-merge</pre>" in command_html(recipe, "town")
    asked = f"{lines}python -m eval score merged/my-merge --probes standard"
    assert f"<pre>{asked}</pre>" in command_html(recipe, "standard")
