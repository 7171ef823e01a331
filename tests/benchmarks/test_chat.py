"""Where a Llama-3-8B with three experts lies on a device, asked of what decides at run time, from headers alone."""

from pathlib import Path

import pytest

from benchmarks.chat import GB, placed
from benchmarks.family import make_hollow

TOGETHER = (("base", "expert0", "expert1"), ("expert2", "merge"))
ALONE = (("base",), ("expert0",), ("expert1",), ("expert2",), ("merge",))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hollow("8b", tmp_path_factory.mktemp("family"))


def test_on_80_gb_no_layer_is_fetched_and_the_folds_have_the_rank_of_the_cpu(home: Path):
    """A model takes 16.06 GB: three of them 48.2, four 64.2."""
    found = placed(home, 80 * GB)
    assert (found.groups, found.fetched) == (TOGETHER, 0)
    # q and o 8192 x 4096, k and v 5120 x 1024, the others 18,432 x 4096, in 32 layers: numbers of 4 bytes at full rank
    full = 4 * 32 * (2 * 8192 * 4096 + 2 * 5120 * 1024 + 3 * 18_432 * 4096)
    assert (found.share, found.live) == (0.33, full * 33 // 100)


def test_on_24_gb_layers_are_fetched(home: Path):
    """15.6 GB: beside 2,101,354,496 bytes that are no layer 30 of 436,224,000 fit, one of them for what is fetched."""
    found = placed(home, 24 * GB)
    assert (found.groups, found.fetched) == (ALONE, 3)
    assert found.live < 0.2 * 24 * GB
    assert placed(home, 3 * GB).fetched is None
