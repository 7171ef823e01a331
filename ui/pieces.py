"""Small things that several panels share."""

from typing import Any

import gradio as gr

from merging.plots.tables import Table


def static(value: str = "", **kwargs: Any) -> gr.HTML:
    """HTML without Gradio's prose styles and click event."""
    return gr.HTML(value, apply_default_css=False, js_on_load=None, **kwargs)


def table_value(table: Table) -> dict[str, Any]:
    headers, rows = table
    return {"headers": headers, "data": rows}
