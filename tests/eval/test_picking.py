"""Which texts a calibration picks: measures by hand, and on Town's base."""

import pytest

from eval.calibrating.picking import best, picked, repetition
from eval.calibrating.texts import Text, read_texts
from eval.running.models import Models
from merging.models import open_model


def test_repetition_by_hand():
    assert repetition([1, 2, 3, 4, 5]) == 0
    assert repetition([1, 2, 3, 1, 2, 3]) == pytest.approx(1 / 4)  # 123 231 312 123
    assert repetition([7, 7, 7, 7, 7]) == pytest.approx(2 / 3)
    assert repetition([1, 2]) == 0


def test_a_text_counts_by_its_worst_measure():
    # better ones in each: 0 1 2 3, then 0 0 0 3, then 3 0 0 0: the worst are 3, 1, 2, 3
    measures = [[0.1, 0.2, 0.3, 0.4], [0, 0, 0, 5], [9, 1, 1, 1]]
    assert best(measures, 1) == [1]
    assert best(measures, 2) == [1, 2]
    assert best(measures, 3) == [0, 1, 2]  # the earlier of two that are alike
    assert best(measures, 4) == [0, 1, 2, 3]


@pytest.fixture(scope="module")
def base(request):
    return Models("cpu").model(open_model("assets/town/base", request.config.rootpath))


def test_broken_texts_are_left_out(base):
    (own,) = read_texts("town", ["honest"], 57)
    broken = [
        Text(expert="honest", text="Mira " * 60),
        Text(expert="honest", text="?street .hen, ;Otto who? .,!"),
        Text(expert="honest", text="Who"),
    ]
    kept = picked(base, [*own[:4], *broken, *own[4:]], 48)
    assert len(kept) == 48
    assert not set(broken) & set(kept)
    assert kept == [text for text in own if text in kept], "in their order"
    assert picked(base, own, 57) == own
