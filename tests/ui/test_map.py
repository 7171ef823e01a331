"""The map before the exact numbers are there."""

import gradio as gr
import numpy as np

from merging.look import Conflict, Family, Look, Matrix, MatrixView, Spectrum, Tail
from merging.plots import conflict_map
from merging.recipe import Expert, Recipe
from ui.panels import map
from ui.session import Session

FAMILY = Family(("helpful", "honest"), (Matrix("a", 0, "q", (8, 8)), Matrix("b", 1, "q", (8, 8))), ("q",), 2)
SESSION = Session(Recipe("ties", "base", (Expert("helpful"), Expert("honest"))), "me")


def test_a_sampled_look_draws_its_own_maps_and_leaves_nothing_of_another_family():
    values = np.array([[[0.4, 0.6]]], dtype=np.float32)
    look = Look("d", FAMILY, {"sign": Conflict("sign", FAMILY.pairs, values)}, {}, 0.1, tier="sample")
    with gr.Blocks():
        panel = map.build()
    drawn = map.draw(panel, look, SESSION, None)
    assert "Sampled" in drawn[panel.finding]
    assert drawn[panel.maps[0]].figure["data"][0]["z"] == [[40.0, 60.0]]
    assert drawn[panel.matrix].figure["data"] == []
    assert drawn[panel.readings] == ""
    assert "Layer 1" in drawn[panel.matrix_title]
    waiting = map.draw(panel, look, Session(SESSION.recipe, "me", measure="shared"), None)
    assert "Shared directions: the maps follow" in waiting[panel.finding]
    assert not set(panel.maps) & waiting.keys()


def test_a_measure_that_the_look_lacks_waits_for_one_that_has_it():
    look = Look("d", FAMILY, {"sign": Conflict("sign", FAMILY.pairs, np.zeros((1, 1, 2), np.float32))}, {}, 0.1)
    with gr.Blocks():
        panel = map.build()
    assert map.draw(panel, look, Session(SESSION.recipe, "me", measure="output"), look) == {}


def test_a_sketched_matrix_is_marked_above_its_curves():
    tails = (Tail("helpful", 1.0, 0.1, 0.2, 0.3, 0.4, 1.0),)
    spectra = tuple(Spectrum(name, np.array([2.0, 1.0]), 1, 1.25, 1) for name in ("helpful", "merge"))
    with gr.Blocks():
        panel = map.build()
    exact, rough = (map.draw_matrix(panel, MatrixView(FAMILY.matrices[0], spectra, tails, 0, s)) for s in (False, True))
    assert "sketch, exact numbers follow" in rough[panel.matrix_title]
    assert "sketch" not in exact[panel.matrix_title]


def test_maps_of_outputs_that_nobody_measured_say_so_and_open_nothing():
    values = np.full((2, 1, 2), np.nan, np.float32)
    look = Look("d", FAMILY, {"output": Conflict("output", (("helpful",), ("honest",)), values)}, {}, 0.1)
    picture = conflict_map(look, "output", 0, FAMILY.matrices[0])
    assert [note["text"] for note in picture.figure["layout"]["annotations"]] == ["Not measured yet."]
    assert picture.figure["data"][0]["text"] == [["", ""]]
    assert not picture.figure["layout"].get("shapes")
