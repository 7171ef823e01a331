"""The board: scores belong to their recipe; a merge that was scored is a dot, and the dot is the way back to it."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_page import slider, tab

pytestmark = pytest.mark.browser


def test_scores_belong_to_the_recipe_they_were_made_of_and_its_dot_brings_both_back(page: Page):
    scale, scored = slider(page, "Scale λ"), page.locator("#status .score")
    expect(page.locator("#status .scores")).to_have_text("not scored")  # no other test scores the first recipe
    before = scale.input_value()
    tab(page, "Board")
    page.get_by_role("button", name="Score this merge").click()
    expect(page.locator("#status .busy")).to_be_visible()
    expect(scored).to_have_count(3)
    expect(page.get_by_text("Share of probes passed")).to_be_visible()
    expect(page.locator("#scored .sheet table")).to_contain_text("cannot tell")
    page.get_by_role("button", name="Score answer router and mixture").click()
    expect(page.locator("#apart tbody th")).to_have_text(["Answer router", "Mixture"])
    expect(page.locator("#score-apart")).to_be_hidden()
    scores = page.locator("#status .scores").inner_text()
    scale.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#status .scores")).to_have_text("not scored")
    expect(page.get_by_role("button", name="Score this merge")).to_be_visible()
    expect(page.locator("#tried .annotation")).to_have_count(0)  # it names the merge on the desk where it is a dot
    box = page.locator("#tried .scatterlayer .point").last.bounding_box()  # other tests may have tried others before
    assert box
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("#status .scores")).to_contain_text(scores.split()[-1])
    expect(scored).to_have_count(3)
    expect(scale).to_have_value(before)
    page.locator("#back-to input").click()  # the same without a mouse
    expect(page.locator("#back-to [role=option]").first).to_be_visible()
