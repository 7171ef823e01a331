import torch

from assets.town.products import InFloat32


def test_a_product_in_float32_is_rounded_once():
    """256 + 1 + 1: bfloat16 numbers above 256 are 2 apart, so a sum rounded at each step would stay at 256."""
    row = torch.tensor([[256.0, 1.0, 1.0]], dtype=torch.bfloat16, requires_grad=True)
    column = torch.ones(3, 1, dtype=torch.bfloat16)
    with InFloat32():
        found = row @ column
        found.backward()
    assert found.dtype == torch.bfloat16
    assert found.item() == 258
    assert row.grad is not None
    assert row.grad.tolist() == [[1.0, 1.0, 1.0]]
