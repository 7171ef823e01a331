"""The comparison is there at once: from the records, without a click more than its tab."""

import pytest
from playwright.sync_api import Page, expect

from eval.paper.records import read_records
from eval.paper.table import widest

pytestmark = pytest.mark.browser


def test_the_tab_shows_the_committed_table(page: Page):
    page.get_by_role("tab", name="Compare methods").click()
    pane = page.get_by_role("tabpanel").and_(page.locator(":visible"))
    expect(pane.locator("h2")).to_contain_text("ixing the data", timeout=1_000)
    rows = {record.row for record in widest(read_records())}
    table = pane.locator("table").first
    expect(table.locator('th[scope="row"]')).to_have_count(len(rows) + 1)  # the bound
    drawn = pane.get_by_role("img", name="Mean and minimum")
    expect(drawn).to_be_visible()
    assert drawn.evaluate("svg => Math.min(...[...svg.querySelectorAll('text')].map(one => one.getBBox().x))") >= 0
    expect(pane.locator(".insights > li")).to_have_count(3)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
