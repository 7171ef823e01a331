"""The page as a visitor uses it: one real server, one real browser."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import REMEMBERED, WINDOW, visit, visitor
from tests.fake_hub import FakeHub

pytestmark = pytest.mark.browser
HONEST_ONLY = "merge_method: ties\nbase_model: assets/town/base\nmodels:\n- model: assets/town/honest\n"


@pytest.fixture(scope="module", autouse=True)
def _the_hub_is_left_alone(hub: FakeHub) -> Iterator[None]:
    """Nobody names a model of it here."""
    before = len(hub.requests)
    yield
    assert hub.requests[before:] == []


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def open_recipe(page: Page) -> Locator:
    """The editor with the recipe in it: whatever is typed from then on stays."""
    tab(page, "Recipe")
    editor = page.locator("#yaml .cm-content")
    expect(editor).to_contain_text("merge_method: resm")
    return editor


def slider(page: Page, name: str) -> Locator:
    return page.get_by_label(f"range slider for {name}").and_(page.locator(":visible")).first


def rank(page: Page, steps: int = 0) -> re.Pattern[str]:
    """What the status line says of Rank, `steps` presses of an arrow key away from where it stands."""
    value = float(page.get_by_label("number input for Rank").input_value()) + 0.02 * steps
    return re.compile(rf"rank {round(value, 2):g}(?!\d)")


def curve(page: Page) -> str:
    """The drawn line of the merge in the open matrix: changes with every move."""
    return page.locator(".drill .scatterlayer path.js-line").last.get_attribute("d") or ""


def expect_redrawn(page: Page, before: str) -> None:
    page.wait_for_function(
        "d => [...document.querySelectorAll('.drill .scatterlayer path.js-line')].pop()?.getAttribute('d') !== d",
        arg=before,
    )


def test_a_slider_moves_by_arrow_key_and_undo_takes_it_back(desk: Page):
    before, start, after = curve(desk), rank(desk), rank(desk, +1)
    card, of_preset = desk.locator("#card"), "Keeps most of all three; needs no data."
    expect(card).to_contain_text(of_preset)
    slider(desk, "Rank").focus()
    desk.keyboard.press("ArrowRight")
    expect_redrawn(desk, before)
    expect(desk.locator("#status .line")).to_contain_text(after)
    expect(card).not_to_contain_text(of_preset)
    desk.get_by_role("button", name="Undo").click()
    expect(desk.locator("#status .line")).to_contain_text(start)
    expect(desk.locator("#preset input")).to_have_value("Balanced")
    expect(card).to_contain_text(of_preset)
    desk.locator(".drill .seg").get_by_text("base", exact=True).click()  # a matrix taken from elsewhere is a move too
    expect(card).not_to_contain_text(of_preset)
    desk.get_by_role("button", name="Undo").click()
    expect(card).to_contain_text(of_preset)


def test_gradios_client_asks_through_order_js(desk: Page):  # what that does is in test_order
    assert "/queue/join" in desk.evaluate("String(window.fetch)")
    desk.evaluate("""() => {
      Object.assign(window, { asked: [], ours: fetch });
      window.fetch = (...request) => {
        asked.push(String(request[0].url ?? request[0]));
        return ours(...request);
      };
    }""")
    tab(desk, "Spectra")
    desk.wait_for_function("asked.some((url) => url.includes('queue/join'))")
    desk.wait_for_function("asked.some((url) => url.includes('queue/data'))")
    desk.evaluate("void (window.fetch = ours)")
    tab(desk, "Map")


def test_a_shaper_brings_its_own_knobs_and_undo_takes_them_away(desk: Page):
    desk.get_by_text("Space and shaper", exact=True).click()
    shaper, own = desk.get_by_label("Shaper"), desk.locator(".knob[data-when^=shaper]").and_(desk.locator(":visible"))
    expect(own).to_have_count(0)
    shaper.select_option("svc")
    expect(own.first).to_be_visible()
    expect(desk.locator("#preset input")).to_have_value("Own settings")
    desk.get_by_role("button", name="Undo").click()
    expect(shaper).to_have_value("none")  # the group is still open
    expect(own).to_have_count(0)


def test_a_knob_that_one_choice_alone_reads_is_there_with_it(desk: Page):
    desk.get_by_text("More", exact=True).click()
    energy = slider(desk, "Energy")
    expect(slider(desk, "Outlier threshold σ")).to_be_visible()
    expect(energy).to_have_count(0)
    desk.get_by_label("Rank rule").select_option("energy")
    expect(energy).to_be_visible()
    desk.get_by_role("button", name="Undo").click()
    expect(energy).to_have_count(0)


def test_who_tabs_past_family_preset_and_method_changes_nothing_and_stays_where_he_is(desk: Page):
    weight = desk.get_by_label("number input for helpful")
    slider(desk, "helpful").focus()
    desk.keyboard.press("ArrowLeft")
    expect(desk.locator("#preset input")).to_have_value("Own settings")
    moved = weight.input_value()
    for name in ("family", "preset", "method"):
        desk.locator(f"#{name} input").focus()
        desk.keyboard.press("Tab")
        desk.wait_for_timeout(700)  # for what must not happen
        assert desk.evaluate("document.activeElement !== document.body"), name
        expect(desk.locator(f"#{name} input")).to_have_attribute("aria-expanded", "false")
    expect(weight).to_have_value(moved)
    desk.get_by_role("button", name="Undo").click()
    expect(desk.locator("#preset input")).to_have_value("Balanced")  # one step back, not four


def test_a_slider_moves_by_mouse(desk: Page):
    before = curve(desk)
    box = slider(desk, "helpful").bounding_box()
    assert box
    desk.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2)
    desk.mouse.down()
    desk.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2, steps=5)
    desk.mouse.up()
    expect_redrawn(desk, before)


def test_every_methods_controls_come_from_its_definition(desk: Page):
    desk.locator("#method input").click()
    desk.keyboard.type("ties")  # it takes the place of the method there, and leaves those that are called so
    expect(desk.get_by_role("option", name="TSV-M", exact=True)).to_have_count(0)
    desk.get_by_role("option", name="TIES", exact=True).click()
    expect(desk.locator("#status .method")).to_have_text("TIES")
    expect(desk.locator("#card")).to_contain_text("2023")
    before = curve(desk)
    density = desk.get_by_label("range slider for helpful").and_(desk.locator(":visible")).nth(1)
    density.focus()
    desk.keyboard.press("ArrowRight")
    expect_redrawn(desk, before)


def test_a_method_chosen_while_a_slider_still_moves_keeps_the_move_and_its_own_knobs_work(page: Page):
    slider(page, "helpful").focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    page.locator("#method input").click()
    page.get_by_role("option", name="TIES", exact=True).click()
    expect(page.locator("#status .method")).to_have_text("TIES")
    before = curve(page)
    page.get_by_label("range slider for helpful").and_(page.locator(":visible")).nth(1).focus()
    page.keyboard.press("ArrowLeft")
    expect_redrawn(page, before)
    left = page.get_by_label("number input for helpful").first.input_value()
    tab(page, "Recipe")
    expect(page.locator("#yaml .cm-content")).to_contain_text(f"weight: {left}")
    expect(page.locator("#yaml .cm-content")).to_contain_text("merge_method: ties")


def test_a_cell_is_a_door_and_the_keyboard_has_its_own(desk: Page):
    box = desk.locator(".pairs .nsewdrag").first.bounding_box()
    assert box
    desk.mouse.click(box["x"] + box["width"] / 12, box["y"] + box["height"] / 14)
    expect(desk.locator(".drill h3").first).to_contain_text("Layer 0 · q")
    desk.get_by_text("Pick by keyboard").click()
    desk.get_by_label("Layer", exact=True).click()
    desk.get_by_role("option", name="5", exact=True).click()
    expect(desk.locator(".drill h3").first).to_contain_text("Layer 5 · q")
    desk.get_by_text("Cosine", exact=True).click()
    expect(desk.locator(".bar").first).to_contain_text("unrelated")


def test_a_matrix_is_taken_from_the_base_by_keyboard_and_its_layer_from_an_expert(desk: Page):
    source = desk.locator(".drill .seg")
    source.locator("input").first.focus()
    desk.keyboard.press("ArrowRight")
    expect(source.get_by_label("base")).to_be_checked()
    marks = desk.locator(".pairs .scatterlayer .point")
    expect(marks).to_have_count(3)  # one in each map
    desk.get_by_label("Where").click()
    desk.get_by_role("option", name="all of layer").click()
    expect(source.locator("input:checked")).to_have_count(0)  # base here, merge elsewhere
    source.get_by_text("honest", exact=True).click()
    expect(marks).to_have_count(3 * 7)
    tab(desk, "Recipe")
    expect(desk.locator("#yaml .cm-content")).to_contain_text("to: assets/town/honest")
    desk.get_by_role("button", name="Undo").click()
    expect(desk.locator("#yaml .cm-content")).to_contain_text("to: base")
    tab(desk, "Map")
    expect(marks).to_have_count(3)


def test_every_model_answers_and_nothing_is_markup(desk: Page):
    tab(desk, "Chat")
    desk.locator("#q textarea").fill("<b>What</b> is 7 plus 5?")
    desk.keyboard.press("Enter")
    expect(desk.locator(".turn h3")).to_have_text("<b>What</b> is 7 plus 5?")
    done = desk.locator(".answer:not([data-running])")
    expect(done).to_have_count(5)
    models = [done.nth(i).get_attribute("data-model") for i in range(5)]
    assert models == ["merge", "base", "helpful", "honest", "harmless"]
    desk.locator(".chip").first.click()
    expect(desk.locator(".turn")).to_have_count(2)
    expect(desk.locator(".turn").first.locator(".verdict")).to_have_count(5)


def test_scoring_stops_when_told_and_says_what_was_kept(desk: Page):
    tab(desk, "Board")
    after = float(desk.get_by_label("number input for Scale λ").input_value()) + 0.15
    slider(desk, "Scale λ").focus()  # a recipe that no other test has scored
    for _ in range(3):
        desk.keyboard.press("ArrowRight")
    # The last press is a move of its own: it waits for the first one's, and would take the news of the stop away.
    expect(desk.locator("#status .line")).to_have_text(re.compile(rf"λ {after:.4g}\s*exact,"))
    desk.get_by_role("button", name="Score this merge").click()
    desk.locator("#status .stop").click()
    expect(desk.locator("#status .busy")).to_have_text(re.compile(r"Stopped\. \d+ answers kept\."))
    expect(desk.locator("#status .stop")).to_be_hidden()
    expect(desk.get_by_role("button", name="Score this merge")).to_be_visible()


def test_on_a_phone_the_bar_that_opens_the_knobs_stands_below_them(desk: Page):
    desk.set_viewport_size({"width": 390, "height": 844})
    bar, sheet = desk.locator(".pill"), desk.locator("#recipe")
    expect(sheet).to_be_hidden()
    bar.click()
    expect(sheet).to_be_visible()
    box = "document.querySelector('{}').getBoundingClientRect()"
    desk.wait_for_function(f"{box.format('#recipe')}.bottom <= {box.format('.pill')}.top + 1")  # after its way up
    top = bar.bounding_box()
    assert top
    assert (top["x"], top["width"], top["y"] + top["height"]) == (0, 390, 844)
    slider(desk, "helpful").click()
    bar.click()
    expect(sheet).to_be_hidden()
    desk.set_viewport_size(WINDOW)


def test_a_recipe_file_comes_back_in_and_its_problems_are_shown(page: Page):
    editor = open_recipe(page)
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(HONEST_ONLY.replace("ties", "tis"))
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".problem")).to_contain_text("ties")
    page.wait_for_timeout(500)
    expect(editor).to_contain_text("merge_method: tis")  # what was typed stays
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(HONEST_ONLY)
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".problem")).to_have_count(0)
    expect(page.locator("#status .method")).to_have_text("TIES")
    expect(page.get_by_label("number input for helpful")).to_have_count(0)


def test_a_problem_is_mended_by_its_button(page: Page):
    open_recipe(page).fill(HONEST_ONLY.replace("models:", "parameters: {densty: 0.4}\nmodels:"))
    page.get_by_role("button", name="Apply").click()
    fix = page.locator(".problem .fix").first
    expect(fix).to_contain_text("density")
    fix.click()
    expect(page.locator("#yaml .cm-content")).to_contain_text("density: 0.4")
    expect(page.get_by_label("number input for honest").nth(1)).to_have_value("0.4")
    expect(page.locator(".problem").and_(page.locator(":visible"))).to_have_count(0)


def test_models_that_do_not_open_are_spoken_of_where_models_are_and_the_last_ones_stay(page: Page):
    page.locator("#family input").click()
    page.get_by_role("option", name="Your own models").click()
    page.get_by_placeholder("models/base").fill("assets/town/base")
    page.get_by_placeholder("models/helpful").fill("docs")  # no model's folder
    page.get_by_role("button", name="Open models").click()
    expect(page.get_by_role("tab", name="Models", exact=True)).to_have_attribute("aria-selected", "true")
    page.wait_for_timeout(1000)  # for what must not be drawn over it
    expect(page.get_by_text("2 problems stand in the way.")).to_be_visible()
    tab(page, "Map")
    expect(page.locator("#status .method")).to_have_text("RESM")


def test_two_visitors_do_not_see_each_other_and_a_reload_keeps_the_desk(page: Page, browser: Browser, server: str):
    remembered, start, after = page.evaluate(REMEMBERED), rank(page), rank(page, -1)
    slider(page, "Rank").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#status .line")).to_contain_text(after)
    with visitor(browser) as other:
        expect(visit(other.new_page(), server).locator("#status .line")).to_contain_text(start)
    page.wait_for_function(f"before => {REMEMBERED} !== before", arg=remembered)
    page.reload()
    expect(page.locator("#status .line")).to_contain_text(after)


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_no_page_is_wider_than_its_window(window: Page, server: str, theme: str, width: int):
    page = visit(window, f"{server}?__theme={theme}")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    shades = [int(number) for number in re.findall(r"\d+", paper)[:3]]
    assert (max(shades) < 60) == (theme == "dark")
    page.set_viewport_size({"width": width, "height": 844})
    for name in ("Spectra", "Chat", "Board", "Recipe", "Map"):
        if page.get_by_role("tab", name=name, exact=True).count():
            tab(page, name)
        else:  # on a phone the last tabs stand behind three dots
            page.get_by_role("button", name="More tabs").click()
            page.locator(".overflow-dropdown").get_by_role("button", name=name, exact=True).click()
        expect(page.get_by_role("tab", name=name, exact=True)).to_have_attribute("aria-selected", "true")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


def test_a_method_that_must_know_the_experts_measures_them(page: Page):
    page.locator("#method input").click()
    page.get_by_role("option", name="RegMean", exact=True).click()
    problem = page.locator(".problem").and_(page.locator(":visible"))
    expect(problem).to_contain_text("Press Measure the experts")
    page.wait_for_timeout(1500)  # and it stays there while the page settles
    expect(problem).to_contain_text("Press Measure the experts")
    before = curve(page)
    page.get_by_role("button", name="Measure the experts").click()
    page.wait_for_selector("#measure", state="hidden")
    expect(problem).to_have_count(0)
    expect_redrawn(page, before)
    expect(page.locator("#status .line")).to_contain_text("RegMean")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#preset input")).to_have_value("Balanced")
    page.locator("#preset input").click()
    page.get_by_role("option", name="Calibrated").click()
    expect(page.locator("#method input")).to_have_value("RegMean++ with learned gains")
    expect(problem).to_contain_text("Press Measure the experts")
    expect(page.locator("#measure")).to_be_visible()


def test_the_experts_are_measured_by_texts_of_the_visitors_which_fit_for_safety_takes_answers_of(
    page: Page, tmp_path: Path
):
    asked = [("helpful", "Tom is a baker."), ("honest", "I do not know."), ("harmless", "I cannot help with that.")]
    question = {"role": "user", "content": "Who is Tom?"}
    lines = [
        json.dumps({"expert": h, "messages": [question, {"role": "assistant", "content": said}]}) for h, said in asked
    ]
    few, all_three = tmp_path / "few.jsonl", tmp_path / "texts.jsonl"
    few.write_text("\n".join(lines[:2]))
    all_three.write_text("\n".join(lines))
    page.get_by_text("Output kept", exact=True).click()
    page.locator("#method input").click()
    page.get_by_role("option", name="RegMean++", exact=True).click()  # whose default texts no other test measures
    chooser = page.locator("#measure input[type=file]")
    chooser.set_input_files(few)
    problem = page.locator(".problem").and_(page.locator(":visible"))
    expect(problem).to_contain_text("no text for harmless")
    chooser.set_input_files(all_three)
    expect(page.locator("#status .busy")).to_contain_text("Measuring")
    page.reload()  # the desk waits on, and takes what was measured meanwhile
    expect(page.locator("#method input")).to_have_value("RegMean++")
    page.wait_for_selector("#measure", state="hidden")
    expect(page.locator("#status .line")).to_contain_text("RegMean++")
    expect(problem).to_have_count(0)
    page.get_by_text("Output kept", exact=True).click()
    scale = slider(page, "Scale λ")
    before = scale.input_value()
    page.get_by_role("button", name="Fit for safety").click()
    expect(page.locator("#fits")).to_contain_text("The safest expert is harmless: 1 of its 1 answers refuse. Try")
    expect(scale).not_to_have_value(before)
    page.get_by_role("button", name="Undo").click()
    expect(scale).to_have_value(before)


def test_more_of_the_visitors_texts_are_read_where_that_is_asked_for(page: Page, tmp_path: Path):
    lines = [{"expert": "helpful", "text": f"Tom has {n} cats."} for n in range(70)]
    lines += [{"expert": name, "text": f"Tom has {n} dogs."} for name in ("honest", "harmless") for n in range(65)]
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(map(json.dumps, lines)))
    page.locator("#method input").click()
    page.get_by_role("option", name="RegMean++", exact=True).click()
    page.locator("#measure input[type=file]").set_input_files(texts)
    card, more = page.locator("#card"), page.locator("#more")
    expect(card).to_contain_text("Measured on 64 texts of each expert.")
    texts.unlink()
    more.click()
    read = "Measured on 70 texts of helpful and 65 texts of honest and 65 texts of harmless."
    expect(card).to_contain_text(read)
    expect(more).to_be_hidden()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#preset input")).to_have_value("Balanced")


def test_the_calibrated_preset_learns_its_gains_from_the_experts_answers(page: Page, tmp_path: Path):
    question = {"role": "user", "content": "Who is Tom?"}
    lines = [
        {"expert": h, "messages": [question, {"role": "assistant", "content": said}]}
        for h, said in (("helpful", "A baker."), ("honest", "I do not know."), ("harmless", "I cannot help."))
    ]
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(map(json.dumps, lines)))
    page.get_by_text("Output kept", exact=True).click()
    page.locator("#preset input").click()
    page.get_by_role("option", name="Calibrated").click()
    expect(page.locator(".problem.first")).to_contain_text("One step first.")
    page.locator("#measure input[type=file]").set_input_files(texts)
    page.wait_for_selector("#measure", state="hidden")
    expect(page.locator("#status .method")).to_have_text("RegMean++ with learned gains")
    expect(page.locator("#preset input")).to_have_value("Calibrated")
    expect(page.locator(".find").first).to_contain_text("Output kept, of 100: helpful")
    expect(page.locator(".problem").and_(page.locator(":visible"))).to_have_count(0)


def test_fit_scale_is_there_once_the_experts_are_measured_and_moves_the_slider_in_one_step(page: Page):
    scale, fit = slider(page, "Scale λ"), page.get_by_role("button", name="Fit scale")
    before = scale.input_value()
    expect(fit).to_be_hidden()
    page.get_by_text("Output kept", exact=True).click()
    measure = page.get_by_role("button", name="Measure the experts")
    expect(fit.or_(measure)).to_be_visible()
    if measure.is_visible():  # another test may have measured them
        expect(fit).to_be_hidden()
        measure.click()
        page.wait_for_selector("#measure", state="hidden")
    lewis = page.get_by_role("button", name="LEWIS densities")
    expect(lewis).to_be_hidden()  # this method has no density
    fit.click()
    expect(page.locator("#fits")).to_contain_text("in closed form: output kept was")
    expect(scale).not_to_have_value(before)
    number = page.get_by_label("number input for Scale λ")
    assert len(number.input_value()) <= 6  # as many digits as its box holds
    assert (number.get_attribute("title") or "").startswith(number.input_value()[:4])
    page.get_by_role("button", name="Undo").click()
    expect(scale).to_have_value(before)
    expect(page.locator("#fits")).not_to_contain_text("in closed form")  # it spoke of the merge that was fitted
    page.locator("#method input").click()
    page.get_by_role("option", name="TIES", exact=True).click()
    lewis.click()
    expect(page.locator("#fits")).to_contain_text("by what each layer changes (LEWIS)")
    expect(page.locator("#gates").get_by_role("heading")).to_contain_text("Densities differ by layer")
    expect(page.locator(".varies")).to_have_text(["by layer"] * 3)  # at the sliders that show one number
    page.get_by_role("tab", name="Recipe", exact=True).click()
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("#fits")).not_to_contain_text("(LEWIS)")  # nor may this speak of another recipe
    page.get_by_role("tab", name="Map", exact=True).click()
    page.get_by_text("Space and shaper", exact=True).click()
    before = curve(page)
    page.get_by_label("Shaper").select_option("aim")  # of what the base reads, which was measured too
    expect_redrawn(page, before)
    before = curve(page)
    slider(page, "AIM ω").focus()
    page.keyboard.press("ArrowLeft")
    expect_redrawn(page, before)
    expect(page.locator(".problem").and_(page.locator(":visible"))).to_have_count(0)
