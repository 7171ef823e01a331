"""The knobs as one component: what a method has is data that the browser draws, not hundreds of Gradio controls.

Python sends what stands there (`ui/controls.py`), the browser draws it and says what it says by now (assets/knobs.js).
"""

import json
from pathlib import Path
from typing import Any

import gradio as gr

_SCRIPT = Path(__file__).parent.parent / "assets" / "knobs.js"


class Knobs(gr.HTML):
    """A column of knobs; `.input` fires at every step of a slider.

    Its value is {"method", "groups"} of `controls.knobs` on the way out, and on the way in {"method", "said"} with a
    value for each key, or a list of values, one for each expert.
    """

    def __init__(self, value: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(
            value,
            html_template="",
            js_on_load=_SCRIPT.read_text(encoding="utf-8"),
            apply_default_css=False,
            elem_classes=["knobs"],
            **kwargs,
        )

    def postprocess(self, value: dict[str, Any] | None) -> str | None:
        return json.dumps(value, separators=(",", ":")) if value else None

    def preprocess(self, payload: str | None) -> dict[str, Any]:
        said = json.loads(payload or "{}")
        return said if isinstance(said, dict) else {}

    def api_info(self) -> dict[str, Any]:
        return {"type": "string"}
