"""One real server and one real browser a worker; without Chromium browser tests are skipped, with the reason."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, ViewportSize, WebError, expect, sync_playwright

from tests.browser.app import CHROMIUM, running_app
from tests.fake_hub import FakeHub

PATIENCE = 240_000  # milliseconds: a wait ends when its sight is there, and a busy machine only takes longer
expect.set_options(timeout=PATIENCE)
WINDOW: ViewportSize = {"width": 1440, "height": 900}
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
    theirs = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hf"), "HF_TOKEN": ""}
    with running_app(home, without=["HF_HUB_OFFLINE"], **theirs) as address:  # which the other tests set
        yield address


@contextmanager
def visitor(browser: Browser) -> Iterator[BrowserContext]:
    """One with a browser of his own."""
    with _context(browser) as opened, _sound(opened):
        yield opened


@contextmanager
def _context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport=WINDOW, accept_downloads=True)
    opened.set_default_timeout(PATIENCE)
    yield opened
    opened.close()


@contextmanager
def _sound(context: BrowserContext) -> Iterator[None]:
    """Fails when a page asked another host for anything or a script failed."""
    elsewhere: list[str] = []
    broken: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            elsewhere.append(request.url)

    def note_error(error: WebError) -> None:
        broken.append(str(error.error))

    context.on("request", note)
    context.on("weberror", note_error)
    yield
    context.remove_listener("request", note)
    context.remove_listener("weberror", note_error)
    assert elsewhere == []
    assert broken == []


@pytest.fixture(scope="module")
def desk(browser: Browser, server: str) -> Iterator[Page]:
    """One visitor's page for the tests that go on from wherever the last one left it: to open a page takes seconds."""
    with visitor(browser) as opened:
        yield visit(opened.new_page(), server)


@pytest.fixture(scope="session")
def one_window(browser: Browser) -> Iterator[Page]:
    with _context(browser) as opened:
        yield opened.new_page()


@pytest.fixture
def window(one_window: Page, server: str) -> Iterator[Page]:
    """A fresh visitor's, empty. It is one window for all of them, which has compiled the page's scripts: this halves
    what opening the page takes.
    """
    one_window.goto(f"{server}nothing-here")  # of the page's origin, and nothing in it writes to the storage
    one_window.evaluate("localStorage.clear(); sessionStorage.clear()")
    one_window.context.clear_cookies()
    one_window.set_viewport_size(WINDOW)
    with _sound(one_window.context):
        yield one_window


@pytest.fixture
def page(window: Page, server: str) -> Page:
    """A fresh visitor's page."""
    return visit(window, server)


def visit(window: Page, address: str) -> Page:
    """The page with its first pictures drawn and its controls at rest."""
    window.goto(address)
    window.locator(".pairs .main-svg").first.wait_for()
    window.locator("#status .live").wait_for()
    window.wait_for_function(REMEMBERED)  # the last thing that a start does
    return window
