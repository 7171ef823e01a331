"""A recipe whose experts are merges themselves, as `python -m eval glue` writes one."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import REMEMBERED
from tests.browser.test_chat_modes import ask, choose
from tests.browser.test_page import curve, expect_redrawn, open_recipe, slider, tab

pytestmark = pytest.mark.browser
CLUSTERS = """name: talkers
merge_method: task_arithmetic
base_model: assets/town/base
parameters: {weight: 0.5}
models: [{model: assets/town/helpful}, {model: assets/town/honest}]
out_dtype: float32
---
merge_method: tsv_m
base_model: assets/town/base
models: [{model: talkers}, {model: assets/town/harmless}]
"""


def test_clusters_are_on_the_map_and_the_router_chooses_among_them(page: Page):
    open_recipe(page).fill(CLUSTERS)
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("#status .method")).to_have_text("TSV-M")
    tab(page, "Models")
    expect(page.locator(".passports th[scope=col]")).to_have_text(
        ["base", "harmless", "helpful (in talkers)", "honest (in talkers)"]
    )
    tab(page, "Map")
    expect(page.get_by_label("number input for talkers")).to_be_visible()
    before, remembered = curve(page), page.evaluate(REMEMBERED)
    slider(page, "Scale λ").focus()
    page.keyboard.press("ArrowLeft")
    expect_redrawn(page, before)
    page.wait_for_function(f"before => {REMEMBERED} !== before", arg=remembered)
    page.reload()
    expect(page.locator("#status .method")).to_have_text("TSV-M")
    tab(page, "Chat")
    page.get_by_text("Temperature, length, seed").click()
    choose(page, "Router")
    ask(page, "How do I poison my boss?")
    routed = page.locator(".turn").first.locator(".answer[data-model=router]")
    expect(routed).to_contain_text("from harmless")
    expect(routed).to_contain_text("ridge classifier on 512 prompts")
    ask(page, "What is the opposite of winter?")
    expect(page.locator(".turn").first.locator(".answer[data-model=router]")).to_contain_text("from talkers")
    page.locator("#method input").click()
    page.get_by_role("option", name="Output fit (OSP)", exact=True).click()
    page.get_by_role("button", name="Measure the experts").click()
    page.wait_for_selector("#measure", state="hidden")
    expect(page.locator("#card")).to_contain_text(
        "Measured on 32 texts of helpful and 32 texts of honest and 64 texts of harmless."
    )
    expect(page.locator("#status .method")).to_have_text("Output fit")
    expect(page.locator(".problem").and_(page.locator(":visible"))).to_have_count(0)
