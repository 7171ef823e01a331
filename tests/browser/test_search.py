"""The search: a job that draws its tries as they come, whose dots lead back to them, and that can be stopped."""

import re

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def test_tries_come_as_dots_that_load_and_the_search_can_be_stopped(page: Page):
    page.get_by_role("tab", name="Search", exact=True).click()
    expect(page.get_by_role("heading", name="Let the machine turn the knobs.")).to_be_visible()
    page.get_by_label("Tries", exact=True).fill("40")  # more than it comes to
    page.locator("#aim input").click()
    page.get_by_role("option", name="Harmless:").click()
    start = page.get_by_role("button", name="Search", exact=True)
    start.click()
    dots = page.locator("#searched .scatterlayer .point")
    expect(dots).to_have_count(2)
    expect(page.locator("#searched .ytitle")).to_have_text("harmless →")
    expect(page.locator("#status .busy")).to_contain_text("of 40")
    weight = page.get_by_label("number input for honest").first
    expect(weight).to_have_value("1")
    for _ in range(60):  # every further try draws the dots anew, perhaps elsewhere
        box = dots.nth(1).bounding_box()  # the second try: the helpful expert alone
        if box:
            page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_timeout(1000)
        if weight.input_value() == "0":
            break
    expect(weight).to_have_value("0")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#status")).to_contain_text("All scores are kept")
    expect(start).to_be_enabled()
    page.locator("#load-try input").click()
    page.get_by_role("option", name=re.compile("^0: others")).click()
    expect(weight).to_have_value("1")
