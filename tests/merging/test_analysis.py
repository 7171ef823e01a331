"""Measures of conflict and spectra, by hand."""

import math

import numpy as np
import pytest
import torch
from torch import tensor

from merging import analysis
from merging.decompose import SVD, svd
from merging.look import cumulative_energy, family_of, gather, place


def test_sign_conflict_counts_only_entries_that_both_moved():
    assert analysis.sign_conflict(tensor([1.0, -2.0, 0.0, 3.0]), tensor([1.0, 5.0, 7.0, -1.0])) == pytest.approx(2 / 3)
    assert math.isnan(analysis.sign_conflict(tensor([0.0, 1.0]), tensor([1.0, 0.0])))


def test_cosine():
    assert analysis.cosine(tensor([3.0, 4.0]), tensor([3.0, 4.0])) == pytest.approx(1.0)
    assert analysis.cosine(tensor([1.0, 0.0]), tensor([-3.0, 4.0])) == pytest.approx(-0.6)
    assert math.isnan(analysis.cosine(tensor([0.0]), tensor([1.0])))


def test_subspaces_overlap_from_0_to_1():
    first, other = svd(torch.diag(tensor([2.0, 1.0, 0.0, 0.0]))), svd(torch.diag(tensor([0.0, 0.0, 2.0, 1.0])))
    assert analysis.subspace_overlap(first.head(2), first.head(2)) == pytest.approx(1.0)
    assert analysis.subspace_overlap(first.head(2), other.head(2)) == pytest.approx(0.0)
    half = svd(torch.diag(tensor([2.0, 0.0, 1.0, 0.0])))  # shares one of two directions on both sides
    assert analysis.subspace_overlap(first.head(2), half.head(2)) == pytest.approx(0.5)


def test_interference_is_0_for_orthogonal_experts_and_1_for_duplicates():
    first, other = svd(torch.diag(tensor([2.0, 0.0]))), svd(torch.diag(tensor([0.0, 1.0])))
    assert analysis.interference(first.head(1), other.head(1)) == pytest.approx(0.0)
    # U^T U - I = [[0,1],[1,0]]; [[0,1],[1,0]] diag(2,2) [[0,1],[1,0]] = diag(2,2): L1 4 of 4
    assert analysis.interference(first.head(1), first.head(1)) == pytest.approx(1.0)


def test_spectrum_summary():
    found = analysis.spectrum("merge", tensor([4.0, 2.0, 2.0, 0.0]), 2)
    assert found.stable_rank == pytest.approx(24 / 16)
    assert found.half_energy == 1
    assert analysis.spectrum("x", tensor([1.0, 1.0, 1.0, 1.0]), None).half_energy == 2
    assert analysis.spectrum("x", torch.zeros(3), None).half_energy == 0
    np.testing.assert_allclose(cumulative_energy(np.array([2.0, 1.0, 1.0])), [4 / 6, 5 / 6, 1])


def test_tail_of_the_worked_example():
    matrix = torch.full((10, 100), 0.01)
    matrix[3, 7] = 100.0
    found = analysis.tail("helpful", matrix, 50.0, kappa=3.0, eta=0.1)
    assert found.threshold == pytest.approx(9.591130, abs=1e-5)
    assert found.entries == pytest.approx(0.001)
    assert found.mass == pytest.approx(100 / 109.99)
    assert found.sparsity == pytest.approx(0.999)  # RMS is 3.16: only the large entry exceeds a tenth of it
    assert found.norm_ratio == pytest.approx(2.0, abs=1e-4)


def test_places_follow_the_order_of_a_block_and_unusual_names_stay_apart():
    shapes = {
        "model.embed_tokens.weight": (96, 32),
        "model.layers.0.mlp.down_proj.weight": (32, 64),
        "model.layers.0.self_attn.q_proj.weight": (32, 32),
        "model.layers.0.input_layernorm.weight": (32,),
        "model.layers.1.self_attn.q_proj.weight": (32, 32),
    }
    found = family_of(("a", "b", "c"), shapes)
    assert found.kinds == ("q", "down")
    assert found.n_layers == 2
    assert found.pairs == (("a", "b"), ("a", "c"), ("b", "c"))
    assert found.at(1, "down") is None
    assert place(found, found.at(0, "down")) == (1, 0)
    gpt2 = {"h.0.attn.c_proj.weight": (4, 4), "h.0.mlp.c_proj.weight": (4, 4), "h.0.attn.c_attn.weight": (4, 12)}
    assert len(set(family_of(("a",), gpt2).kinds)) == 3


def test_what_no_row_says_is_gathered_into_none():
    family = family_of(["honest"], {"model.layers.0.self_attn.q_proj.weight": (4, 4)})
    (matrix,) = family.matrices
    assert gather(family, 0, [(matrix, [])]).shape == (0, len(family.kinds), 1)  # one expert has no pair
    assert gather(family, 1, [(matrix, [0.5])]).tolist() == [[[0.5]]]


def test_an_svd_head_is_its_leading_part():
    whole = SVD(torch.eye(3), tensor([3.0, 2.0, 1.0]), torch.eye(3))
    assert [tuple(x.shape) for x in (whole.head(2).u, whole.head(2).s, whole.head(0).v)] == [(3, 2), (2,), (3, 0)]
