"""The route of other devices than the CPU: the CPU by another name, a pretended device, and a GPU where one is."""

import pytest
import torch

from benchmarks import family as synthetic
from merging.compute import PINNED, across_layers, onto, read_deltas
from merging.decompose import SVD, singular_values, svd
from merging.device import Shares, divide
from merging.eigen import eigenvalues, gram, top_by_torch, top_eigen
from merging.engine import merged_tensors, one_thread_a_matrix
from merging.methods import METHODS as ALL
from merging.pieces import merged_tensor
from merging.plan import Plan, make_plan
from merging.polar import polar
from merging.recipe import Expert, Recipe
from merging.sketch import sketch
from tests.pretend_device import pretend_device

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
EXCLUDE = (("exclude", ("*embed*", "*lm_head*")),)
METHODS = {
    "linear": (), "ties": (("density", 0.5),), "della": (("density", 0.5), ("epsilon", 0.1)), "model_stock": (),
    "tsv_m": EXCLUDE, "resm": EXCLUDE, "iso_c": EXCLUDE,
}  # fmt: skip
EVERY = [name for name, method in ALL.items() if not method.calibrated]
TAKEN = {"slerp": 1, "arcee_fusion": 1, "nearswap": 1, "passthrough": 1, "nuslerp": 2}  # experts, where not any number
NEEDED = {"slerp": (("t", 0.5),), "nearswap": (("t", 0.001),)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Matrices large enough for every fast route, one layer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(synthetic.SIZES, "one", (320, 512, 1, 64, 4, 4))
        return synthetic.make_family("one", tmp_path_factory.mktemp("family"))


def merged(folder, method, device) -> dict[str, torch.Tensor]:
    return dict(merged_tensors(planned(folder, method), device=device))


def planned(folder, method) -> Plan:
    models = tuple(Expert(name, (("weight", 1.0),)) for name in synthetic.EXPERTS[: TAKEN.get(method)])
    settings = METHODS.get(method, NEEDED.get(method, EXCLUDE if ALL[method].spectral else ()))
    return make_plan(Recipe(method, "base", models, settings, out_dtype="float32", folder=folder))


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], most: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].device.type == "cpu"
        assert float((found[name] - tensor).norm()) <= most * float(tensor.norm()), name


@pytest.mark.parametrize("method", METHODS)
def test_whole_tensors_on_a_device_are_what_blocks_on_the_cpu_are(folder, method):
    same(merged(folder, method, "cpu:0"), merged(folder, method, "cpu"), 1e-7)


@pytest.mark.parametrize("method", EVERY)
def test_every_method_stays_on_its_device(folder, method):
    plan = planned(folder, method)
    with pretend_device() as device, one_thread_a_matrix():
        peak = across_layers(plan, lambda tensor: read_deltas(plan, tensor, device)[1])
        found = {tensor.name: merged_tensor(plan, tensor, peak, device) for tensor in plan.tensors}
    same(found, merged(folder, method, "cpu"), 1e-4)


@pytest.mark.parametrize("method", ["linear", "ties", "della", "tsv_m"])
def test_what_is_outside_the_layers_stays_in_host_memory(folder, method):
    plan = planned(folder, method)
    for name in ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"):
        found = merged_tensor(plan, plan.tensor(name), None, "meta")  # where there are no numbers
        assert torch.equal(found, merged_tensor(plan, plan.tensor(name), None, "cpu"))


def test_the_pretended_device_refuses_what_a_real_one_refuses():
    here = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    with pretend_device() as device:
        there = here.to(device)
        assert there.device.type == device
        assert (there[[1, 0]] @ there).cpu().tolist() == [[15.0, 22.0], [7.0, 10.0]]
        assert (there * torch.tensor(2.0)).tolist() == [[2.0, 4.0], [6.0, 8.0]]  # a number may lie on the CPU
        with pytest.raises(RuntimeError, match="one on the CPU"):
            _ = there + here
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


def test_eigenvectors_by_torch_read_the_upper_half_too():
    a = torch.randn(400, 250, generator=torch.Generator().manual_seed(1))
    half = gram(a)
    torch.testing.assert_close(half.triu(), (a.T @ a).triu(), rtol=1e-5, atol=1e-3)
    half.masked_fill_(torch.ones(250, 250).tril(-1).bool(), 7.0)
    for k in (20, 200):
        values, vectors = top_by_torch(half.clone(), k)
        ours, mine = top_eigen(half.clone(), k)
        torch.testing.assert_close(ours, values, rtol=1e-5, atol=0)
        torch.testing.assert_close(ours, eigenvalues(half.clone())[:k], rtol=1e-5, atol=0)
        torch.testing.assert_close((mine * vectors).sum(0).abs(), torch.ones(k), rtol=0, atol=1e-2)


def delta(m: int, n: int) -> torch.Tensor:
    """Twenty directions above a bulk of noise."""
    random = torch.Generator().manual_seed(m + n)
    left, right, noise = (torch.randn(*shape, generator=random) for shape in ((m, 20), (20, n), (m, n)))
    return left @ right + 0.1 * noise


def dense(part: SVD) -> torch.Tensor:
    return ((part.u * part.s) @ part.v.T).cpu()


def test_sketches_and_their_polar_factors_take_no_svd_and_no_qr(monkeypatch: pytest.MonkeyPatch):
    for name in ("svd", "svdvals", "qr", "matrix_rank", "pinv"):
        monkeypatch.setattr(torch.linalg, name, lambda *_, **__: pytest.fail("slow on a device"))
    with pretend_device() as device:
        parts = [sketch(delta(512, 640 + t).to(device), 100) for t in range(3)]
        for side in ([part.u for part in parts], [part.v[:640] for part in parts]):
            found = polar(torch.cat(side, 1), 1e-3)[0].cpu()
            torch.testing.assert_close(found.T @ found, torch.eye(300), rtol=0, atol=1e-3)


@pytest.mark.cuda
@ON_GPU
class TestGPU:
    @pytest.mark.parametrize("shape", [(512, 320), (320, 512)])
    def test_decompositions(self, shape):
        a = delta(*shape)
        for find in (svd, sketch):
            torch.testing.assert_close(dense(find(a.cuda(), 20)), dense(find(a, 20)), rtol=0, atol=1e-3)
        torch.testing.assert_close(singular_values(a.cuda()).cpu(), singular_values(a), rtol=1e-5, atol=1e-4)

    def test_polar_factors(self):
        a = torch.cat([torch.linalg.qr(delta(512, 320)[:, i : i + 100]).Q for i in (0, 100, 200)], 1)
        for tolerance in (0.0, 1e-3):
            torch.testing.assert_close(polar(a.cuda(), tolerance)[0].cpu(), polar(a, tolerance)[0], rtol=0, atol=1e-4)

    @pytest.mark.parametrize("pinned", [PINNED, 0])
    def test_tensors_come_over_whole_on_a_stream_of_their_own(self, pinned, monkeypatch):
        monkeypatch.setattr("merging.compute.PINNED", pinned)
        many = [torch.full((1024, 1024), float(i)) for i in range(20)]  # pinned memory is used again for the later ones
        with torch.cuda.stream(torch.cuda.Stream()):
            found = [onto(tensor.clone(), "cuda") for tensor in many]
            found = [tensor.cpu() for tensor in found]
        assert all(torch.equal(*pair) for pair in zip(found, many, strict=True))

    @pytest.mark.parametrize("method", EVERY)
    def test_merges(self, folder, method):
        same(merged(folder, method, "cuda"), merged(folder, method, "cpu"), 2e-3)


def test_how_a_device_is_divided():
    assert divide(100) == Shares(chat=65, live=20)
