"""What assets/order.js passes on to Gradio's client, with a server that speaks when the test says so."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

ORDER = Path(__file__).resolve().parents[2] / "assets" / "order.js"
# `answer(event)` answers the last request for an event, `say(...)` and `end()` act on the last stream that was opened.
SERVER = """() => {
  Object.assign(window, { heard: [], opened: 0 });
  window.fetch = async (url) => {
    if (url.endsWith("/queue/join"))
      return new Promise((go) => { window.answer = (event) => go(Response.json({ event_id: event })); });
    opened += 1;
    return new Response(new ReadableStream({ start: (stream) => {
      const bytes = (...[msg, event]) => JSON.stringify({ msg, event_id: event }).replace(/^/, "data: ") + "\\n\\n";
      window.say = (...message) => stream.enqueue(new TextEncoder().encode(bytes(...message)));
      window.end = () => stream.close();
    } }));
  };
}"""
CLIENT = """() => {
  window.join = async () => (await fetch("http://server/queue/join")).json();
  window.listen = async () => {
    const answer = await fetch("http://server/queue/data");
    for await (const text of answer.body.pipeThrough(new TextDecoderStream()))
      for (const message of text.split("\\n\\n").filter(Boolean))
        heard.push(Object.values(JSON.parse(message.slice(6))).join(" "));
    heard.push("ended");
  };
}"""


@pytest.fixture
def client(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    page.evaluate(SERVER)
    page.add_script_tag(path=ORDER)
    page.evaluate(CLIENT)
    yield page
    page.close()


def _heard(page: Page, *messages: str) -> None:
    page.wait_for_function("many => heard.length >= many", arg=len(messages))
    assert page.evaluate("heard") == list(messages)


def test_what_comes_before_the_answer_to_its_request_waits_for_it_and_so_does_all_that_follows(client: Page):
    client.evaluate("() => { join(); answer('first'); listen(); }")
    client.evaluate("() => { say('process_generating', 'first'); join(); }")
    _heard(client, "process_generating first")
    client.evaluate("() => { say('process_generating', 'second'); say('process_completed', 'first'); }")
    client.wait_for_timeout(300)  # for what must not happen
    _heard(client, "process_generating first")
    client.evaluate("answer('second')")
    _heard(client, "process_generating first", "process_generating second", "process_completed first")


def test_a_stream_that_closes_before_an_event_is_over_is_opened_again(client: Page):
    client.evaluate("() => { join(); answer('first'); listen(); }")
    client.evaluate("() => { say('process_generating', 'first'); say('close_stream', null); end(); }")
    client.wait_for_function("opened === 2")
    client.evaluate("() => { say('process_completed', 'first'); say('close_stream', null); end(); }")
    _heard(client, "process_generating first", "process_completed first", "close_stream ", "ended")
    assert client.evaluate("opened") == 2
