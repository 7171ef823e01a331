"""What the server sends the page of an event's outputs."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gradio as gr
import pytest
from gradio.state_holder import SessionState

from ui.blocks import Blocks


def _page() -> tuple[Blocks, Any, list[Any]]:
    with Blocks() as page:
        one, two, state = gr.HTML("one"), gr.HTML("two"), gr.State(1)
        page.load(lambda: None, outputs=[one, two, state, one])
    return page, page.fns[0], [one, two, state]


def _sent(page: Blocks, event: Any, said: Any, state: SessionState | None = None) -> list[Any]:
    with ThreadPoolExecutor(1) as thread:  # in the tests' own Playwright keeps a loop running
        return thread.submit(asyncio.run, page.postprocess_data(event, said, state)).result()


def test_an_output_that_an_event_leaves_alone_is_left_alone():
    page, event, (one, two, _) = _page()
    assert _sent(page, event, {one: "1"}) == ["1", gr.skip(), gr.skip(), "1"]
    assert _sent(page, event, {two: "2"}) == [gr.skip(), "2", gr.skip(), gr.skip()]


def test_a_state_takes_what_an_event_says_and_keeps_what_it_leaves_alone():
    page, event, (one, _, state) = _page()
    kept = SessionState(page)
    _sent(page, event, {state: 2, one: "1"}, kept)
    _sent(page, event, {one: "1"}, kept)
    assert kept[state._id] == 2


def test_values_in_a_row_and_unknown_outputs_are_gradios_own_to_judge():
    page, event, (_, two, _) = _page()
    assert _sent(page, event, ("1", "2", 3, "4")) == ["1", "2", None, "4"]
    with pytest.raises(ValueError, match="not specified as output"):
        _sent(page, event, {two: "2", gr.HTML(): "?"})


def test_later_messages_of_an_event_hold_whole_values_and_the_end_repeats_nothing():
    page, event, _ = _page()
    first = page.handle_streaming_diffs(event, ["a", {"visible": True}, "c", "d"], "visitor", "run", final=False)
    later = page.handle_streaming_diffs(event, ["ab", {"visible": False}, "c", "d"], "visitor", "run", final=False)
    last = page.handle_streaming_diffs(event, ["", "", "", ""], "visitor", "run", final=True)
    assert first == ["a", {"visible": True}, "c", "d"]
    assert later == [[["replace", [], value]] for value in ("ab", {"visible": False}, "c", "d")]
    assert last == [gr.skip()] * 4
