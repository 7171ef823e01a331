"""Small things that several panels share."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.blocks import BlockContext
from gradio.components import Component

from ui.figure import Figure

ABREAST = 3  # maps in a row
Output = Component | BlockContext  # what an event may update


def static(value: str = "", **kwargs: Any) -> gr.HTML:
    """HTML without Gradio's prose styles and click event."""
    return gr.HTML(value, apply_default_css=False, js_on_load=None, **kwargs)


def token_box(info: str, elem_id: str) -> gr.Textbox:
    """A visitor's Hub token: goes with one request or job, and is kept nowhere."""
    return gr.Textbox(label="Hub token", info=info, type="password", max_lines=1, interactive=True, elem_id=elem_id)


def maps_abreast() -> tuple[tuple[gr.Column, ...], tuple[gr.HTML, ...], tuple[Figure, ...]]:
    """A row of titled maps: columns, titles, figures. On a phone it scrolls sideways."""
    columns, titles, maps = [], [], []
    with gr.Row(elem_classes=["pairs"]):
        for _ in range(ABREAST):
            with gr.Column(min_width=0) as column:
                columns.append(column)
                titles.append(static(elem_classes=["pic"]))
                maps.append(Figure(height=224))
    return tuple(columns), tuple(titles), tuple(maps)


def table_value(table: tuple[list[str], Sequence[Sequence[Any]]]) -> dict[str, Any]:
    headers, rows = table
    return {"headers": headers, "data": [list(row) for row in rows]}
