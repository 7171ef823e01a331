"""One real server and one real browser for all browser tests; without Chromium they are skipped, with the reason."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from tests.browser.app import CHROMIUM, running_app
from tests.fake_hub import FakeHub

expect.set_options(timeout=20_000)  # a wait ends when its sight is there: a busy machine only takes longer
REMEMBERED = "localStorage.getItem('mergescope')"  # what the browser keeps over a reload; written when all is at rest


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        reason = "Chromium is not installed (apt-get install chromium)"
        if os.environ.get("MERGESCOPE_BROWSER") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def hub() -> Iterator[FakeHub]:
    """The Hub that the server asks: one on loopback."""
    made = FakeHub()
    with made.serving():
        yield made


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's data folder, with its log and the Hub library's cache."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def server(home: Path, hub: FakeHub) -> Iterator[str]:
    """The address of `python app.py`, started as a user starts it."""
    with running_app(home, HF_ENDPOINT=hub.url, HF_HOME=str(home / "hf"), HF_HUB_OFFLINE="0", HF_TOKEN="") as address:
        yield address


@contextmanager
def visitor(browser: Browser) -> Iterator[BrowserContext]:
    """A fresh visitor; fails when the page asked another host for anything or a script failed."""
    opened = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    opened.set_default_timeout(30_000)
    elsewhere: list[str] = []
    broken: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            elsewhere.append(request.url)

    opened.on("request", note)
    opened.on("weberror", lambda error: broken.append(str(error.error)))
    yield opened
    opened.close()
    assert elsewhere == []
    assert broken == []


@pytest.fixture
def context(browser: Browser, server: str) -> Iterator[BrowserContext]:
    with visitor(browser) as opened:
        yield opened


@pytest.fixture(scope="module")
def desk(browser: Browser, server: str) -> Iterator[Page]:
    """One visitor's page for the tests that go on from wherever the last one left it: to open a page takes seconds."""
    with visitor(browser) as opened:
        yield visit(opened, server)


@pytest.fixture
def page(context: BrowserContext, server: str) -> Page:
    return visit(context, server)


def visit(context: BrowserContext, server: str, query: str = "") -> Page:
    """The page with its first pictures drawn and its controls at rest."""
    opened = context.new_page()
    opened.goto(server + query)
    opened.locator(".pairs .main-svg").first.wait_for()
    opened.locator("#status .live").wait_for()
    opened.wait_for_function(REMEMBERED)  # the last thing that a start does
    return opened
