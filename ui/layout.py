"""The page: what stands where. Which event calls what is in `app.py`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from merging.methods import METHODS
from ui import controls, desk
from ui.page import Page
from ui.panels import board, chat, compare, map, method, models, passports, recipe, search, spectra, status
from ui.pieces import static
from ui.problem import problem_place
from ui.services import Services
from ui.session import names_of

_ASSETS = Path(__file__).resolve().parent.parent / "assets"
_ONCE = "\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in ("order.js", "keys.js"))
_PILL = (
    '<label class="pill"><input type="checkbox" id="knobs-open"><span class="shut">Knobs</span>'
    '<span class="opened">Done</span></label>'
)
_BRAND = '<h1 class="brand"><span class="logo"><i></i><i></i><i></i></span>Mergescope</h1>'


def lay_out(services: Services, tabs: dict[str, gr.Tab]) -> Page:
    """Builds all components; puts each tab into `tabs` by its id."""
    first = desk.first_recipe(services)
    panels: dict[str, tuple[str, Callable[[], Any]]] = {  # by the tab's title: a field of Page, and what builds it
        "Map": ("map", map.build),
        "Spectra": ("spectra", spectra.build),
        "Chat": ("chat", partial(chat.build, names_of(first), METHODS[first.method].title)),
        "Board": ("board", board.build),
        "Search": ("search", search.build),
        "Recipe": ("recipe", recipe.build),
        "Models": ("passports", passports.build),
    }
    session, turns = gr.State(None), gr.State(())
    browser = gr.BrowserState(None, storage_key="mergescope", secret="mergescope")  # fixed: survives a server restart
    with gr.Row(elem_id="shell"):
        gr.HTML(_PILL, apply_default_css=False, js_on_load=_ONCE)
        with gr.Column(elem_id="recipe", scale=0, min_width=0):
            static(_BRAND)
            chosen_models = models.build()
            preset = method.build_preset(services.presets)
            weights = controls.build_weights(first)
            chosen = method.build(preset, first.method)
            knobs = controls.build_knobs(first)
            with gr.Row(elem_classes=["foot"]):
                undo = gr.Button("Undo", min_width=0)
                save = gr.Button("Save merge…", variant="primary", min_width=0)
        with gr.Column(elem_id="main", min_width=0):
            line = status.build()
            problem = problem_place()
            with gr.Tabs(elem_id="tabs") as all_tabs:
                built: dict[str, Any] = {}
                for title, (field, build) in panels.items():
                    with gr.Tab(title, id=title.lower(), elem_classes=["pane"]) as tabs[title.lower()]:
                        built[field] = build()
                with gr.Tab("Compare methods", id="compare", elem_classes=["pane"]) as tabs["compare"]:
                    compare.build()
    desk_ = controls.Controls(chosen.method, weights, knobs)
    return Page(session, turns, browser, line, problem, all_tabs, chosen_models, chosen, desk_, undo, save, **built)
