"""Gradio's Blocks, without what an event leaves alone or has said already, and with every value sent whole."""

from copy import copy
from typing import Any

import gradio as gr
from gradio.blocks import Block


class Blocks(gr.Blocks):
    async def postprocess_data(self, block_fn: Any, predictions: Any, state: Any) -> list[Any]:
        """An output that an event leaves alone stays as it is: Gradio builds it anew, and has the page set gr.HTML."""
        by_output = isinstance(predictions, dict) and predictions and all(isinstance(key, Block) for key in predictions)
        if not by_output:
            return await super().postprocess_data(block_fn, predictions, state)
        said = copy(block_fn)
        said.outputs = list(dict.fromkeys(block for block in block_fn.outputs if block in predictions))
        values = await super().postprocess_data(said, predictions, state)
        sent = dict(zip(said.outputs, values, strict=True))
        return [sent.get(block, gr.skip()) for block in block_fn.outputs]

    def handle_streaming_diffs(
        self, block_fn: Any, data: list[Any], session_hash: str | None, run: str | None, final: bool,
        simple_format: bool = False,
    ) -> list[Any]:  # fmt: skip
        """Gradio sends what has changed since an event's last message, and its client (6.31) writes that into values
        which it may not have shown yet: of messages that come at once an update's `visible` is lost. And when an event
        ends, Gradio sends its last message again: over what a later event has said meanwhile. So nothing is said then.
        """
        first = session_hash is None or run not in self.pending_diff_streams[session_hash]
        whole = super().handle_streaming_diffs(block_fn, data, session_hash, run, final, simple_format=True)
        if first or simple_format or run is None:
            return whole
        if final:
            return [gr.skip() for _ in whole]
        return [[["replace", [], value]] for value in whole]
