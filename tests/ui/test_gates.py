"""What is said of a gate."""

from dataclasses import replace

import numpy as np

from tests.merging.test_gate import look
from ui.gates import gate_finding


def test_what_is_said():
    said = gate_finding(look())
    assert "helpful</b> 1 of 3." in said
    assert "τ 0.29 gates the lowest 30 of 100" in said  # .2 + .6 (.35 - .2)
    one = look()
    assert one.gate is not None
    none = replace(one, gate=replace(one.gate, values=np.full_like(one.gate.values, np.nan)))
    assert gate_finding(none).startswith("<h2>Nothing is gated")


def test_a_density_that_is_the_same_everywhere_is_said_once():
    one = look()
    assert one.gate is not None
    even = np.full_like(one.gate.values, 0.5)
    said = gate_finding(replace(one, gate=replace(one.gate, values=even, threshold=None)))
    assert "helpful</b> 0.50 in every layer" in said
    assert "to layer" not in said
