"""The board: a merge that was scored is a dot, and the dot is the way back to it."""

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def test_a_dot_of_the_trade_off_loads_its_recipe_with_its_scores(page: Page):
    page.get_by_role("tab", name="Board", exact=True).click()
    scale = page.get_by_label("range slider for Scale λ").and_(page.locator(":visible")).first
    before = scale.input_value()
    scored = page.locator("#status .score")
    first = page.get_by_role("button", name="Score this merge")
    expect(first.or_(scored.first)).to_be_visible()
    if not scored.count():  # another test may have scored this merge
        first.click()
    expect(scored).to_have_count(3, timeout=120_000)
    scores = page.locator("#status .scores").inner_text()
    expect(page.locator("#scored .sheet table")).to_contain_text("cannot tell")
    scale.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#status .scores")).to_have_text("not scored")
    expect(first).to_be_visible(timeout=30_000)
    box = page.locator("#tried .scatterlayer .point").first.bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("#status .scores")).to_contain_text(scores.split()[-1], timeout=30_000)
    expect(scored).to_have_count(3)
    expect(scale).to_have_value(before)
    page.locator("#back-to input").click()  # the same without a mouse
    expect(page.locator("#back-to [role=option]").first).to_be_visible()
