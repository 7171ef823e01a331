"""The safe gate's strip on the Map: there with its method alone, and each mark opens its matrix."""

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def test_the_strip_comes_with_its_method_says_what_was_gated_and_opens_a_matrix(page: Page):
    strip = page.locator("#gates")
    expect(strip).to_be_hidden()
    page.locator("#method input").click()
    page.get_by_role("option", name="Safe gate").click()
    expect(strip.get_by_role("heading")).to_contain_text("no expert is marked")
    page.get_by_text("More", exact=True).first.click()
    page.get_by_label("range slider for harmless, Safe").focus()
    page.keyboard.press("ArrowRight")
    expect(strip.get_by_role("heading")).to_contain_text("of 42, ")
    marks = strip.locator(".point")
    expect(marks).to_have_count(2 * 42)
    box = marks.last.bounding_box()  # honest, last layer, last kind
    assert box
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.get_by_role("heading", name="Layer 5 · down")).to_be_visible()
    page.locator("#method input").click()
    page.get_by_role("option", name="TIES", exact=True).click()
    expect(strip).to_be_hidden()
