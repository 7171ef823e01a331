"""Slices: where each layer, the embeddings and the head come from, and what config.json says afterwards."""

import json
import re

import torch
from safetensors.torch import load_file

from merging.__main__ import main
from merging.engine import merged_tensors
from merging.merged_config import sliced_config
from merging.plan import check, make_plan
from merging.recipe import parse_recipe
from tests.pico import config, shapes, write_model

TWO = """
merge_method: linear
slices:
- sources: [{model: a, layer_range: [0, 2]}]
- sources: [{model: b, layer_range: [1, 4], parameters: {weight: [1, 3]}}]
parameters: {normalize: false, weight: 1}
dtype: float32
"""


def numbered(folder, name, scale, layers=4):
    """A model whose tensors hold `scale` times their layer's number from 1; embeddings 50, norm 60, head 70."""
    outside = {"model.embed_tokens.weight": 50, "model.norm.weight": 60, "lm_head.weight": 70}
    tensors = {}
    for tensor, shape in shapes(layers, False).items():
        layer = re.search(r"layers\.(\d+)", tensor)
        tensors[tensor] = torch.full(shape, float(scale * (int(layer[1]) + 1 if layer else outside[tensor])))
    write_model(folder / name, tensors, config(layers, torch.float32, False))


def value(tensors, name):
    low, high = tensors[name].aminmax()
    assert low == high
    return float(low)


def test_layers_follow_each_other_and_the_ends_come_from_the_first_and_last_slice(tmp_path):
    numbered(tmp_path, "a", 1)
    numbered(tmp_path, "b", 100, layers=6)
    merged = dict(merged_tensors(make_plan(parse_recipe(TWO, tmp_path))))
    up = [value(merged, f"model.layers.{i}.mlp.up_proj.weight") for i in range(5)]
    # the gradient [1, 3] runs over the three layers of its own slice; final norm and head take its first value
    assert up == [1, 2, 200 * 1, 300 * 2, 400 * 3]
    ends = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    assert [value(merged, name) for name in ends] == [50, 6000, 7000]
    assert len(merged) == 3 + 5 * 9


def test_one_layer_counts_as_the_last_and_a_filter_sees_the_models_own_layer_number(tmp_path):
    numbered(tmp_path, "a", 1)
    text = """
merge_method: linear
slices:
- sources: [{model: a, layer_range: [3, 4]}]
  parameters: {weight: [5, 9]}
- sources: [{model: a, layer_range: [2, 4]}, {model: a, layer_range: [0, 2]}]
  parameters: {weight: [{filter: layers.3., value: 10}, {filter: layers.0., value: 100}, {value: 1}]}
parameters: {normalize: false}
"""
    merged = dict(merged_tensors(make_plan(parse_recipe(text, tmp_path))))
    up = [value(merged, f"model.layers.{i}.mlp.up_proj.weight") for i in range(3)]
    assert up == [9 * 4, 1 * 3 + 100 * 1, 10 * 4 + 1 * 2]
    assert value(merged, "model.embed_tokens.weight") == 5 * 50


def test_what_it_writes_it_reads_back_and_the_digest_knows_the_layers(tmp_path):
    numbered(tmp_path, "a", 1)
    numbered(tmp_path, "b", 100)
    recipe = parse_recipe(TWO, tmp_path)
    assert parse_recipe(recipe.to_yaml(), tmp_path) == recipe
    assert "models:" not in recipe.to_yaml()
    digests = {make_plan(parse_recipe(text, tmp_path)).digest
               for text in (TWO, TWO.replace("[0, 2]", "[1, 3]"), TWO.replace("[1, 3]}", "[1, 2]}"))}  # fmt: skip
    assert len(digests) == 3


def test_the_export_counts_its_layers(tmp_path):
    numbered(tmp_path, "a", 1)
    numbered(tmp_path, "b", 100)
    (tmp_path / "recipe.yml").write_text(TWO)
    assert main(["merge", str(tmp_path / "recipe.yml"), str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == 5
    assert value(load_file(tmp_path / "out" / "model.safetensors"), "model.layers.4.mlp.up_proj.weight") == 1200
    text = f"merge_method: linear\nmodels: [{{model: {tmp_path}/out}}]"
    assert check(parse_recipe(text, tmp_path)).plan is not None  # it opens as a model again


def test_config_fields_of_single_layers_follow_their_layers():
    own = {"num_hidden_layers": 3, "layer_types": ["full", "near", "far"], "mlp_only_layers": [0, 2],
           "max_window_layers": 2, "eos_token_id": [1, 2, 3]}  # fmt: skip
    assert sliced_config(own, [(own, 0), (own, 1), (own, 1), (own, 2)]) == {
        "num_hidden_layers": 4, "layer_types": ["full", "near", "near", "far"], "mlp_only_layers": [0, 3],
        "max_window_layers": 3, "eos_token_id": [1, 2, 3]}  # fmt: skip
