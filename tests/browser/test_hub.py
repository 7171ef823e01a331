"""The Hub on the page, against a fake one on loopback: models found and opened, a merge saved and pushed to it."""

import re
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from eval.judging.probes import load_probes
from tests.browser.test_page import tab
from tests.fake_hub import FakeHub

pytestmark = pytest.mark.browser


@pytest.fixture
def models(hub: FakeHub, pico_family: dict[str, Path]) -> None:
    for name, folder in pico_family.items():
        hub.add(f"pico/{name}", folder)


def choose(page: Page, typed: str, found: str, use: str) -> None:
    page.locator("#find-model input, #find-model textarea").fill("")
    page.locator("#find-model input, #find-model textarea").press_sequentially(typed, delay=30)
    page.locator(f'.found [data-model="{found}"]').get_by_text(use).click()


@pytest.mark.usefixtures("models")
def test_a_family_is_found_downloaded_and_opened(page: Page):
    tab(page, "Models")
    choose(page, "pico/b", "pico/base", "Use as base")
    for name in ("helpful", "honest"):
        choose(page, f"pico/{name[:3]}", f"pico/{name}", "Add as expert")
        expect(page.locator("#own textarea")).to_have_value(re.compile(f"pico/{name}$"))
    page.get_by_role("button", name="Open models").click()
    download = page.locator("#download")
    expect(download).to_have_text(re.compile("Download .* kB"))
    expect(page.locator(".passports th .who")).to_have_text(["base", "helpful", "honest"])
    download.click()
    tab(page, "Map")
    expect(page.locator(".pairs .main-svg").first).to_be_visible()
    expect(page.locator("#own")).to_contain_text("Base")
    expect(page.locator(".drill h3").first).to_contain_text("32")  # pico's width
    tab(page, "Board")  # models with words of their own know nothing of Town
    expect(page.locator("#main")).to_contain_text("60 standard questions")
    tab(page, "Recipe")
    expect(page.locator(".command pre")).to_contain_text("--probes standard")
    tab(page, "Chat")
    expect(page.locator(".chip").first).to_have_attribute("data-probe", load_probes("quick").probes[0].id)


def test_a_merge_can_be_taken_away_also_after_a_reload_and_goes_to_the_hub_its_token_nowhere_else(
    page: Page, hub: FakeHub, home: Path
):
    page.locator("#recipe").get_by_role("button", name="Save merge").click()
    link = page.locator("#merged a").first
    link.wait_for()  # merged, then loaded again and asked
    expect(page.locator("body")).to_contain_text("the same logits, bit for bit")
    page.reload()
    page.locator(".pairs .main-svg").first.wait_for()
    tab(page, "Recipe")
    link.wait_for()
    with page.expect_download() as download:
        link.click()
    with zipfile.ZipFile(download.value.path()) as archive:
        names = {name.split("/", 1)[1] for name in archive.namelist()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    page.locator("#send").wait_for()
    page.locator("#repo input, #repo textarea").fill("me/from-the-page")
    page.locator("#push-token input").fill(hub.token)
    page.locator("#send").click()
    expect(page.locator("#push a")).to_have_attribute("href", f"{hub.url}/me/from-the-page")
    pushed = hub.repos["me/from-the-page"]
    assert pushed.private
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= pushed.files.keys()
    assert hub.token not in page.content()
    files = [path for path in home.rglob("*") if path.is_file()]
    assert any(path.name == "job.json" for path in files)
    assert [path for path in files if hub.token.encode() in path.read_bytes()] == []
    assert not any(path.is_dir() and path.name == "balanced" for path in home.rglob("*"))  # only the archive stays
