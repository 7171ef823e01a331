"""Gradio's Blocks, with every value sent whole."""

from typing import Any

import gradio as gr


class Blocks(gr.Blocks):
    """Gradio sends what has changed since an event's last message, and its client (6.31) writes that into values which
    it may not have shown yet: of messages that come at once an update's `visible` is lost.
    """

    def handle_streaming_diffs(
        self, block_fn: Any, data: list[Any], session_hash: str | None, run: str | None, final: bool,
        simple_format: bool = False,
    ) -> list[Any]:  # fmt: skip
        first = session_hash is None or run not in self.pending_diff_streams[session_hash]
        whole = super().handle_streaming_diffs(block_fn, data, session_hash, run, final, simple_format=True)
        if first or final or simple_format or run is None:
            return whole
        return [[["replace", [], value]] for value in whole]
