"""The map before the exact numbers are there."""

import gradio as gr
import numpy as np

from merging.analysis import Conflict, Family, Look, Matrix
from merging.recipe import Expert, Recipe
from ui.panels import map
from ui.session import Session

FAMILY = Family(("helpful", "honest"), (Matrix("a", 0, "q", (8, 8)), Matrix("b", 1, "q", (8, 8))), ("q",), 2)
SESSION = Session(Recipe("ties", "base", (Expert("helpful"), Expert("honest"))), "me")


def test_a_sampled_look_draws_its_own_maps_and_nothing_else():
    values = np.array([[[0.4, 0.6]]], dtype=np.float32)
    look = Look("d", FAMILY, {"sign": Conflict("sign", FAMILY.pairs, values)}, {}, 0.1, sampled=True)
    with gr.Blocks():
        panel = map.build()
    drawn = map.draw(panel, look, SESSION, None)
    assert "Sampled" in drawn[panel.finding]
    assert drawn[panel.maps[0]].figure["data"][0]["z"] == [[40.0, 60.0]]
    assert not {panel.matrix, panel.readings, panel.matrix_title} & drawn.keys()
    assert map.draw(panel, look, Session(SESSION.recipe, "me", measure="shared"), None) == {}


def test_a_measure_that_the_look_lacks_waits_for_one_that_has_it():
    look = Look("d", FAMILY, {"sign": Conflict("sign", FAMILY.pairs, np.zeros((1, 1, 2), np.float32))}, {}, 0.1)
    with gr.Blocks():
        panel = map.build()
    assert map.draw(panel, look, Session(SESSION.recipe, "me", measure="output"), look) == {}
