"""The page as a visitor feels it: from opening to the first picture, and from a slider's move to the new picture.

    python -m benchmarks.page [--moves 30]     moves by mouse and by arrow key, on Map and on Spectra
    python -m benchmarks.page --methods        every method in turn, calibrated ones after measuring the experts: a
                                               picture, no problem, no error in the console

Starts the app on the built-in family and drives a real Chromium without a window. A move's clock runs in the browser,
from the slider's `input` event to the frame that shows the changed picture.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from merging.method import Method
from merging.methods import METHODS
from tests.browser.app import CHROMIUM, running_app

TARGET = 300  # milliseconds, for the 95th percentile of all moves
SLIDERS = ("helpful", "Rank")  # a weight, which only folds anew, and a knob that changes what is folded
PICTURES = {"Map": ".drill .js-plotly-plot", "Spectra": ".duo .js-plotly-plot"}  # what every move changes
# The first input after `started = 0` starts the clock; each redraw notes the frame that shows it. So does the status
# line, which comes in the same message: a move that changes no direction leaves the pictures as they are.
_CLOCK = """selector => {
  window.started = window.painted = 0;
  const painted = () => requestAnimationFrame(() => { window.painted = performance.now(); });
  document.addEventListener("input", () => { window.started ||= performance.now(); }, true);
  new MutationObserver(painted).observe(document.querySelector("#status"),
    { subtree: true, childList: true, characterData: true });
  for (const plot of document.querySelectorAll(selector)) plot.on("plotly_afterplot", painted);
}"""
_READY = "() => window.started && window.painted > window.started"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=30, help="moves of each slider by each hand on each tab")
    parser.add_argument("--methods", action="store_true", help="choose every method instead")
    asked = parser.parse_args()
    if CHROMIUM is None:
        print("Chromium is not installed (apt-get install chromium)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as home, running_app(Path(home)) as address, _chromium() as browser:
        return every_method(browser, address) if asked.methods else reaction(browser, address, asked.moves)


def reaction(browser: Browser, address: str, moves: int) -> int:
    """Prints the table; 1 where a row misses the target."""
    print(f"first picture after {median(opening(browser, address) for _ in range(3)):.1f} s (median of 3 visitors)")
    page = _visit(browser, address)
    slowest = 0.0
    print(f"{'milliseconds':28}{'p50':>6}{'p95':>6}{'worst':>7}")
    for tab, selector in PICTURES.items():
        page.get_by_role("tab", name=tab, exact=True).click()
        page.locator(selector).first.locator(".main-svg").first.wait_for()
        page.wait_for_timeout(1000)
        page.evaluate(_CLOCK, selector)
        for name in SLIDERS:
            slider = page.get_by_label(f"range slider for {name}").and_(page.locator(":visible")).first
            for hand, step in (("mouse", _by_mouse), ("keys", _by_key)):
                times = [_move(page, move) for move in step(page, slider, moves)]
                p95 = quantiles(times, n=20, method="inclusive")[-1]
                slowest = max(slowest, p95)
                print(f"{f'{tab}, {name} by {hand}':28}{median(times):6.0f}{p95:6.0f}{max(times):7.0f}", flush=True)
    return int(slowest > TARGET)


def opening(browser: Browser, address: str) -> float:
    """Seconds from asking for the page to its first picture, for a visitor whose browser has kept nothing."""
    page = browser.new_context().new_page()
    page.goto(address, wait_until="commit")
    page.locator(".pairs .main-svg").first.wait_for()
    seconds: float = page.evaluate("performance.now()") / 1000
    page.context.close()
    return seconds


def every_method(browser: Browser, address: str) -> int:
    """Choose each method and wait for its picture; names those that show a problem or make the console complain. One
    that must know the experts measures them first, by the page's own button."""
    page = _visit(browser, address)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    bad = 0
    for method in sorted(METHODS.values(), key=lambda m: m.title.lower(), reverse=True):
        problems, note = _choose(page, method), ""
        if method.calibrated and page.locator("#measure").is_visible():
            note = f", experts measured in {_measured(page):.0f} s"
            _choose(page, METHODS["linear"])
            problems = _choose(page, method)
        wrong = [*errors, *problems]
        errors.clear()
        bad += bool(wrong)
        seconds = page.evaluate("(window.painted - window.started) / 1000")
        print(f"{method.id:20}{'; '.join(wrong) or f'{seconds:6.2f} s{note}'}", flush=True)
    return int(bad > 0)


def _choose(page: Page, method: Method) -> list[str]:
    """The problems that show once the method's picture or a problem is there."""
    page.evaluate(_CLOCK, PICTURES["Map"])
    page.evaluate("window.started = performance.now()")
    page.locator("#method input").click()
    page.get_by_role("option", name=method.title, exact=True).click()
    page.wait_for_function(f"() => ({_READY})() || document.querySelector('.problem')", timeout=120_000)
    expect(page.locator("#card")).to_contain_text(method.summary.replace("`", "")[:40])
    page.wait_for_timeout(300)
    return page.locator(".problem").and_(page.locator(":visible")).all_inner_texts()


def _measured(page: Page) -> float:
    """Seconds until the experts are measured."""
    start = time.perf_counter()
    page.get_by_role("button", name="Measure the experts").click()
    page.locator("#measure").wait_for(state="hidden", timeout=600_000)
    return time.perf_counter() - start


def _move(page: Page, step: Callable[[], None]) -> float:
    """Milliseconds from the first input event of `step` to the frame with the new picture."""
    page.evaluate("window.started = window.painted = 0")
    step()
    page.wait_for_function(_READY, timeout=20_000)
    page.wait_for_function("performance.now() - window.painted > 150")  # the other pictures of the same move
    taken: float = page.evaluate("window.painted - window.started")
    return taken


def _by_mouse(page: Page, slider: Locator, moves: int) -> Iterator[Callable[[], None]]:
    """One drag to and fro with the button held: each move is one step of the pointer."""
    box = slider.bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    shares = [0.55 + 0.08 * min(i % 10, 10 - i % 10) for i in range(moves + 1)]  # never weight 0
    places = [box["x"] + box["width"] * share for share in shares]
    page.mouse.move(places[0], middle)
    page.mouse.down()
    page.wait_for_timeout(1000)
    for place in places[1:]:
        yield lambda place=place: page.mouse.move(place, middle)
    page.mouse.up()
    page.wait_for_timeout(500)


def _by_key(page: Page, slider: Locator, moves: int) -> Iterator[Callable[[], None]]:
    slider.focus()
    for i in range(moves):
        yield lambda i=i: page.keyboard.press("ArrowLeft" if i < moves / 2 else "ArrowRight")


@contextmanager
def _chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def _visit(browser: Browser, address: str) -> Page:
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.goto(address)
    page.locator(".pairs .main-svg").first.wait_for()
    page.wait_for_function("localStorage.getItem('mergescope')")  # the last thing that a start does
    return page


if __name__ == "__main__":
    sys.exit(main())
