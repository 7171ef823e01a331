"""What a visitor may switch on beside the merge in Chat."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_page import tab

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chat(desk: Page) -> Page:
    tab(desk, "Chat")
    desk.get_by_text("Temperature, length, seed").click()
    return desk


def choose(chat: Page, wanted: str) -> None:
    """This column beside the models, and no other."""
    for name in ("Router", "Mixture (SMILE)", "Duo"):
        chat.get_by_role("checkbox", name=name).set_checked(name == wanted)


def columns(page: Page) -> list[str | None]:
    """The models of the newest question, in order, once all have answered."""
    turn = page.locator(".turn").first
    expect(turn.locator(".answer[data-running]")).to_have_count(0)
    answers = turn.locator(".answer")
    return [answers.nth(i).get_attribute("data-model") for i in range(answers.count())]


def ask(page: Page, question: str) -> None:
    page.locator("#q textarea").fill(question)
    page.keyboard.press("Enter")
    expect(page.locator(".turn h3").first).to_have_text(question)
    expect(page.locator("#ask")).to_be_visible()


def test_the_router_names_its_choice_and_takes_its_answer(chat: Page):
    choose(chat, "Router")
    ask(chat, "How do I poison my boss?")
    assert columns(chat) == ["merge", "router", "base", "helpful", "honest", "harmless"]
    answer = chat.locator('.turn .answer[data-model="router"]')
    expect(answer.locator(".routing > p").first).to_contain_text("from harmless")
    expect(answer.locator(".routing dd")).to_have_count(3)
    expect(answer.locator(".routing .help")).to_contain_text("ridge classifier")
    expert = chat.locator('.turn .answer[data-model="harmless"] p').first
    expect(answer.locator("p").first).to_have_text(expert.inner_text())
    chat.get_by_role("radio", name="directions", exact=True).check()
    ask(chat, "What is 8 plus 5?")
    expect(answer.locator(".routing .help").first).to_contain_text("each expert's directions")
    choose(chat, "none")
    expect(chat.get_by_role("radio", name="directions", exact=True)).to_be_hidden()
    ask(chat, "What is 7 plus 5?")
    assert columns(chat) == ["merge", "base", "helpful", "honest", "harmless"]


def test_the_mixture_marks_each_token_and_lists_them_for_the_keyboard(chat: Page):
    expect(chat.get_by_label("number input for Mixture rank")).to_have_count(0)
    choose(chat, "Mixture (SMILE)")
    chat.get_by_label("number input for Gate rank").fill("16")
    ask(chat, "What is 3 plus 4?")
    assert columns(chat) == ["merge", "mixture", "base", "helpful", "honest", "harmless"]
    answer = chat.locator('.turn .answer[data-model="mixture"]')
    expect(answer.locator(".routing .help")).to_have_text("SMILE, rank 64, gate rank 16, 1 at a time")
    marks = answer.locator(".part")
    expect(marks.first).to_be_visible()
    chat.get_by_text("mixture, piece by piece").click()
    expect(chat.locator(".turn").first.locator("tbody tr")).to_have_count(marks.count())
    expect(chat.locator(".turn").first.locator("thead th")).to_have_text(
        ["piece", "most from", "helpful", "honest", "harmless"]
    )


def test_duo_says_who_wrote_each_piece(chat: Page):
    choose(chat, "Duo")
    expect(chat.get_by_label("Drafts", exact=True)).to_have_value("helpful")
    chat.get_by_label("number input for Threshold").fill("0")
    chat.keyboard.press("Tab")
    ask(chat, "Reverse this list: lamp, river, book.")
    assert columns(chat) == ["merge", "duo", "base", "helpful", "honest", "harmless"]
    answer = chat.locator('.turn .answer[data-model="duo"]')
    expect(answer.locator("p").first).to_have_text(
        chat.locator('.turn .answer[data-model="helpful"] p').first.inner_text()
    )
    expect(answer.locator(".part.r-helpful").first).to_be_visible()
    expect(answer.locator(".routing dd")).to_have_text(["100 %", "0 %"])
    chat.get_by_text("duo, piece by piece").click()
    expect(chat.locator(".turn").first.locator("thead th")).to_have_text(
        ["piece", "most from", "helpful", "honest", "draft: likelihood"]
    )
    chat.get_by_label("no refusal").check()
    expect(chat.get_by_label("number input for Threshold")).to_be_hidden()
    ask(chat, "What is 9 plus 5?")
    expect(answer.locator(".routing .help").first).to_have_text(
        "helpful drafts; taken where it does not refuse, else honest writes"
    )


def test_a_question_that_cannot_be_asked_stays_in_its_box(chat: Page):
    choose(chat, "Duo")
    chat.get_by_role("combobox", name="Takes or writes").click()
    chat.get_by_role("option", name="helpful", exact=True).last.click()
    box = chat.locator("#q textarea")
    box.fill("How do I crack an egg?")
    box.press("Enter")
    expect(chat.get_by_role("alert")).to_contain_text("Duo needs two different models")
    expect(box).to_have_value("How do I crack an egg?")
