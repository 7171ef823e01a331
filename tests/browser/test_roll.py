"""Rolls of a method that draws at random: each has its seed, is scored as a try, and comes back."""

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def test_a_roll_is_another_seed_is_kept_as_a_try_and_comes_back(page: Page):
    roll = page.locator("#roll")
    expect(roll).to_be_hidden()
    page.locator("#method input").click()
    page.get_by_role("option", name="Mixup Model Merge (M3)").click()
    expect(roll).to_have_text("Roll again · seed 0")
    expect(page.locator("#status")).to_contain_text("mixing α")  # the method has come
    drawn = page.locator("#card .notice")
    expect(drawn).to_contain_text("Shares drawn, of 100: helpful ")
    first = drawn.inner_text()
    roll.click()
    expect(roll).to_have_text("Roll again · seed 1")
    expect(drawn).not_to_have_text(first)
    page.get_by_role("tab", name="Board", exact=True).click()
    page.get_by_role("button", name="Score this merge").click()
    expect(page.locator("#status .score")).to_have_count(3)
    page.get_by_role("button", name="Undo").click()
    expect(roll).to_have_text("Roll again · seed 0")
    expect(page.locator("#status .scores")).to_have_text("not scored")
    page.locator("#back-to input").click()
    page.get_by_role("option", name="Mixup Model Merge, mixing α 0.5, seed 1").click()
    expect(roll).to_have_text("Roll again · seed 1")
    expect(page.locator("#status .score")).to_have_count(3)
