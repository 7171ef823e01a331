"""The picture component: plotly.js in a gr.HTML, because gr.Plot has no click, no dark mode and forgets its state."""

import json
from pathlib import Path
from typing import Any

import gradio as gr

from merging.plots import Picture

# Relative, so that the page does not show where this machine keeps its files; `serve_pictures` hands them out. What
# every picture does is a file of its own: Gradio copies and searches a component's script at each of its updates.
_FILES: list[str | Path] = ["assets/plotly.min.js", "assets/figure.js"]
_SCRIPT = 'showFigure(element, props, watch, (cell) => trigger("select", cell));'
_TEMPLATE = """<figure role="group" aria-label="Picture" style="min-height:${height}px">
<div class="plot" style="height:${height}px"></div><a class="png" href="#">PNG</a></figure>"""


def serve_pictures() -> None:
    """Let the server hand out the scripts; call before launch, from the repository's own folder."""
    gr.set_static_paths(_FILES)


class Figure(gr.HTML):
    """Shows a `Picture`; None keeps the last one. `.select` carries {x, y, name, customdata} of the clicked cell."""

    def __init__(self, value: Picture | None = None, *, height: int = 224, **kwargs: Any) -> None:
        super().__init__(
            value,
            html_template=_TEMPLATE.replace("${height}", str(height)),
            js_on_load=_SCRIPT,
            apply_default_css=False,
            head="".join(f'<script src="gradio_api/file={file}"></script>' for file in _FILES),
            min_height=height,
            **kwargs,
        )

    def postprocess(self, value: Picture | None) -> str | None:
        """As text: Gradio looks through every number of anything else, here and once more in the browser."""
        return value and json.dumps(
            {"figure": value.figure, "narrow": value.narrow, "label": value.label}, separators=(",", ":")
        )

    def api_info(self) -> dict[str, Any]:
        return {"type": "string"}
