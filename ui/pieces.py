"""Small things that several panels share."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.blocks import BlockContext
from gradio.components import Component

Output = Component | BlockContext  # what an event may update


def static(value: str = "", **kwargs: Any) -> gr.HTML:
    """HTML without Gradio's prose styles and click event."""
    return gr.HTML(value, apply_default_css=False, js_on_load=None, **kwargs)


def table_value(table: tuple[list[str], Sequence[Sequence[Any]]]) -> dict[str, Any]:
    headers, rows = table
    return {"headers": headers, "data": [list(row) for row in rows]}
