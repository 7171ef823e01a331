"""A tensor with a side of 0 merges to itself, with every method, from files to a file."""

import pytest
import torch
from safetensors.torch import load_file

from merging.calibration import ABOUT, About
from merging.checkpoint import open_checkpoint
from merging.engine import merge
from merging.methods import METHODS
from merging.plan import make_plan
from merging.recipe import Expert, Recipe
from tests.pico import NAMES, config, make_family, write_model

SHAPES = {"model.empty": (0,), "model.wide.weight": (0, 4), "model.high.weight": (4, 0),
          "model.layers.0.self_attn.q_proj.lost.weight": (32, 0),
          "model.layers.0.mlp.experts.gate_up_proj": (0, 3, 3)}  # fmt: skip


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    empty = {name: torch.empty(shape, dtype=torch.bfloat16) for name, shape in SHAPES.items()}
    for home in make_family(folder, 3, layers=1, tied=True).values():
        tensors = load_file(home / "model.safetensors") | empty
        write_model(home, tensors, config(1, torch.bfloat16, tied=True))
    return folder


@pytest.mark.parametrize("method", list(METHODS.values()), ids=list(METHODS))
def test_an_empty_tensor_stays_empty(method, family, tmp_path):
    n = min(max(3, method.experts[0]), method.experts[1]) - method.base_first
    calibration = None
    if method.calibrated:  # on texts that tell nothing
        base, *experts = (open_checkpoint(name, family).fingerprint for name in ("base", *NAMES[:n]))
        about = About(base=base, experts=tuple(experts), stream=method.calibrated, tokens=(1,) * n, matrices={},
                      embedding="")  # fmt: skip
        calibration = str(tmp_path / "calibration")
        (tmp_path / "calibration").mkdir()
        (tmp_path / "calibration" / ABOUT).write_text(about.model_dump_json())
    recipe = Recipe(method.id, "base", tuple(map(Expert, NAMES[:n])), dtype="float32", calibration=calibration,
                    folder=family)  # fmt: skip
    list(merge(make_plan(recipe), tmp_path / "out"))
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert {name: tuple(merged[name].shape) for name in SHAPES} == SHAPES
    assert {merged[name].dtype for name in SHAPES} == {torch.float32}
