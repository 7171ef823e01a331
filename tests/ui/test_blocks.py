"""What the server sends the page of an event's outputs."""

import asyncio
from typing import Any

import gradio as gr

from ui.blocks import Blocks


def _page(handler: Any) -> tuple[Blocks, Any, list[gr.HTML]]:
    with Blocks() as page:
        outputs = [gr.HTML("one", kind="plain"), gr.HTML("two", kind="plain"), gr.HTML("three")]
        page.load(handler, outputs=outputs)
    return page, page.fns[0], outputs


def test_an_output_that_an_event_leaves_alone_is_left_alone():
    page, event, (one, _, three) = _page(lambda: None)
    said = {three: "3", one: "1"}
    assert asyncio.run(page.postprocess_data(event, said, None)) == ["1", {"__type__": "update"}, "3"]


def test_an_event_that_says_nothing_sends_nothing():
    page, event, _ = _page(lambda: None)
    assert asyncio.run(page.postprocess_data(event, {}, None)) == [{"__type__": "update"}] * 3


def test_later_messages_of_an_event_hold_whole_values():
    page, event, _ = _page(lambda: None)
    first = page.handle_streaming_diffs(event, ["a", {"visible": True}, "c"], "visitor", "run", final=False)
    later = page.handle_streaming_diffs(event, ["ab", {"visible": False}, "c"], "visitor", "run", final=False)
    last = page.handle_streaming_diffs(event, ["", "", ""], "visitor", "run", final=True)
    assert first == ["a", {"visible": True}, "c"]
    assert later == [[["replace", [], "ab"]], [["replace", [], {"visible": False}]], [["replace", [], "c"]]]
    assert last == ["ab", {"visible": False}, "c"]
