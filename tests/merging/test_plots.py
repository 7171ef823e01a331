"""Pictures of literal numbers: pytest tests/merging/test_plots.py"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from merging.look import Conflict, Family, Look, Matrix, MatrixView, Spectrum, Tail
from merging.plots import (
    conflict_map,
    conflict_table,
    kept_map,
    kept_table,
    matrix_spectrum,
    roles,
    row_values,
    rows_shown,
    scale_of,
    spectra_sheet,
    spectrum_table,
    tail_map,
    tail_table,
)

ROOT = Path(__file__).parents[2]


def family(n_layers: int = 2, kinds: tuple[str, ...] = ("q", "down"), experts=("helpful", "math")) -> Family:
    matrices = tuple(Matrix(f"layers.{i}.{k}", i, k, (4, 8)) for i in range(n_layers) for k in kinds)
    return Family(tuple(experts), matrices, kinds, n_layers)


def spectrum(model: str, values, kept: int | None = None) -> Spectrum:
    return Spectrum(model, np.array(values, dtype=np.float32), kept, 1.0, 1)


def view(matrix: Matrix, kept=(2, 1), merge=(5.0, 3.0, 2.0)) -> MatrixView:
    spectra = (
        spectrum("helpful", [4, 2, 1, 0.5], kept[0]), spectrum("math", [3, 1, 0.5, 0.25], kept[1]),
        spectrum("merge", merge),
    )  # fmt: skip
    tails = tuple(Tail(m, 0.1, 0.01, mass, 0.5, 0.2, weight) for m, mass, weight in (("helpful", 0.25, 0.5),
                                                                                  ("math", 0.125, 1.0)))  # fmt: skip
    return MatrixView(matrix, spectra, tails, 0)


def look(fam: Family | None = None, sign=((0.5, 0.63), (0.42, np.nan)), **kwargs) -> Look:
    fam = fam or family()
    values = np.array([sign], dtype=np.float32)
    conflicts = {"sign": Conflict("sign", fam.pairs, values), "cosine": Conflict("cosine", fam.pairs, 1 - 2 * values)}
    views = {m.name: view(m, **kwargs) for m in fam.matrices}
    return Look("digest", fam, conflicts, views, 0.1)  # pyright: ignore[reportArgumentType]


def test_an_expert_named_after_an_h_takes_its_colour_and_no_two_share_one():
    found = roles(["math", "town-helpful", "Honest-7B", "poet"])
    assert found == {"base": "base", "math": "harmless", "town-helpful": "helpful", "Honest-7B": "honest",
                     "poet": "teal", "merge": "merge"}  # fmt: skip
    assert len(set(roles(["a", "b", "c", "d", "e", "f"]).values())) == 8


def test_cells_stand_where_their_matrix_is_and_missing_ones_are_empty():
    trace = conflict_map(look(), "sign", 0, None).figure["data"][0]
    assert trace["x"] == [0, 1]
    assert trace["z"] == [[50.0, 63.0], [42.0, None]]
    assert trace["text"] == [["50", "63"], ["42", ""]]
    assert [cell[:2] for cell in trace["customdata"][1]] == [[0, "down"], [1, "down"]]
    assert trace["meta"] == "values"


def test_a_number_far_below_does_not_take_the_room_of_all():
    far = Conflict("output", (("a",),), np.array([[[-37.64, 0.5], [-1.0, np.nan]]], dtype=np.float32))
    trace = conflict_map(replace(look(), conflicts={"output": far}), "output", 0, None).figure["data"][0]
    assert trace["text"] == [["<−99", "50"], ["−100", ""]]
    assert trace["z"][0] == [-3764.0, 50.0]  # which hovering shows


def test_a_locked_cell_carries_the_mark_of_its_holder():
    l = look()  # noqa: E741
    held = {"layers.1.q": "base", "layers.0.down": "math", "lm_head": "math"}
    *_, marks = conflict_map(l, "sign", 0, None, held).figure["data"]
    assert list(zip(marks["x"], marks["y"], strict=True)) == [(-0.36, 0.78), (0.64, -0.22)]
    assert marks["marker"]["color"] == ["@honest", "@base"]  # the first free colour is math's
    assert len(conflict_map(l, "sign", 0, None).figure["data"]) == 1


def test_the_open_matrix_has_the_frame_of_its_cell():
    l = look()  # noqa: E741
    *_, frame = conflict_map(l, "sign", 0, l.family.at(1, "down")).figure["layout"]["shapes"]
    assert frame["line"]["color"] == "@ink"
    assert (frame["x0"], frame["x1"], frame["y0"], frame["y1"]) == (0.5, 1.5, 0.5, 1.5)


def test_kinds_run_from_top_to_bottom():
    low, high = conflict_map(look(), "sign", 0, None).figure["layout"]["yaxis"]["range"]
    assert low > 1 > 0 > high


@pytest.mark.parametrize(
    ("worst", "ends"),
    [(0.53, (46, 54)), (0.57, (42, 58)), (0.63, (34, 66)), (0.8, (18, 82)), (1.0, (0, 100))],
)
def test_the_sign_scale_is_the_smallest_step_around_chance_that_holds_the_cells(worst, ends):
    conflict = Conflict("sign", (("a", "b"),), np.full((1, 2, 2), worst, dtype=np.float32))
    scale = scale_of(conflict)
    assert (scale.first, scale.last) == ends


def test_together_is_left_for_cosine_too():
    scale = scale_of(Conflict("cosine", (("a", "b"),), np.array([[[0.3, -0.1]]], dtype=np.float32)))
    assert (scale.first, scale.last, scale.left) == (40, -40, "pull together")
    assert scale.ends == ("40", "−40")
    l = look()  # noqa: E741
    trace = conflict_map(l, "cosine", 0, None).figure["data"][0]
    assert trace["reversescale"]
    assert trace["zmin"] == -trace["zmax"]


def test_three_rows_are_shown_whole_and_more_become_worst_picked_and_mean():
    values = np.array([[[0.4]], [[0.6]], [[0.5]], [[0.3]]], dtype=np.float32)
    many = Conflict("sign", (("a", "b"), ("a", "c"), ("b", "c"), ("c", "d")), values)
    assert rows_shown(Conflict("sign", many.rows[:3], values[:3])) == (0, 1, 2)
    assert rows_shown(many, 2) == ("worst", 2, "mean")
    assert row_values(many, "worst") == pytest.approx(0.6)
    assert row_values(many, "mean") == pytest.approx(0.45)
    assert row_values(Conflict("cosine", many.rows, values), "worst") == pytest.approx(0.3)


def test_deep_models_get_few_ticks_and_no_numbers():
    fam = family(32)
    deep = look(fam, sign=np.full((2, 32), 0.5))
    picture = conflict_map(deep, "sign", 0, None)
    axis = picture.figure["layout"]["xaxis"]
    assert axis["ticktext"][:3] == ["layer 0", "4", "8"]
    assert "meta" not in picture.figure["data"][0]
    assert picture.height == conflict_map(look(), "sign", 0, None).height


def test_the_spectrum_is_solid_to_the_cut_and_dotted_beyond():
    data = matrix_spectrum(view(family().matrices[0])).figure["data"]
    solid, dotted = data[0], data[1]
    assert (solid["x"], solid["y"]) == ([1, 2], [4.0, 2.0])
    assert (dotted["x"], dotted["y"]) == ([2, 3, 4], [2.0, 1.0, 0.5])
    assert "dash" in dotted["line"]
    assert data[-1]["line"] == {"color": "@merge", "width": 3}


def test_cut_labels_are_stacked_by_k_and_never_touch():
    layout = matrix_spectrum(view(family().matrices[0]), height=268).figure["layout"]
    labels = {n["text"]: n["y"] for n in layout["annotations"] if "keeps" in n["text"]}
    assert labels["math keeps <b>1</b>"] - labels["helpful keeps <b>2</b>"] == pytest.approx(19 / 208)


def test_one_label_says_it_when_all_keep_the_same():
    notes = matrix_spectrum(view(family().matrices[0], kept=(2, 2))).figure["layout"]["annotations"]
    assert [n["text"] for n in notes if "keeps" in n["text"]] == ["each keeps <b>2</b>, drops the rest"]
    assert {"helpful", "math", "<b>merge</b>"} <= {n["text"] for n in notes}


@pytest.mark.parametrize("kept", [(None, None), (4, 4), (0, 0), (99, 1)])
@pytest.mark.parametrize("merge", [(), (0.0, 0.0), (5.0,)])
def test_ends_of_the_rank_knob_and_a_merge_without_a_change_draw(kept, merge):
    for quantity in ("strength", "energy"):
        picture = matrix_spectrum(view(family().matrices[0], kept, merge), quantity)
        json.dumps(picture.figure, allow_nan=False)


def test_names_are_shown_as_written():
    m = family().matrices[0]
    evil = MatrixView(m, (spectrum("<b>x</b>&", [2, 1], 1), spectrum("merge", [2.0])), (), 0)
    text = json.dumps(matrix_spectrum(evil).figure)
    assert "<b>x" not in text
    assert "&lt;b&gt;x&lt;/b&gt;&amp;" in text


def test_kept_prints_the_count_and_colours_the_share():
    trace = kept_map(look(), "helpful", None).figure["data"][0]
    assert trace["text"][0] == ["2", "2"]
    assert trace["z"][0] == [50.0, 50.0]  # 2 of 4 directions
    assert trace["customdata"][0][0][2] == 4


def test_a_method_without_cuts_says_so():
    (note,) = kept_map(look(kept=(None, None)), "helpful", None).figure["layout"]["annotations"]
    assert note["text"] == "This method cuts no directions."


def test_tails():
    assert tail_map(look(), "helpful", "mass", None).figure["data"][0]["z"][0] == [25.0, 25.0]
    weight = tail_map(look(), "helpful", "weight", None).figure["data"][0]
    assert weight["z"][0] == [50.0, 50.0]
    assert (weight["zmin"], weight["zmax"]) == (0, 200)  # 100, untouched, in the middle


def test_the_sheet_keeps_each_curve_inside_its_cell():
    ground, *lines = spectra_sheet(look(), None).figure["data"]
    assert ground["customdata"][0][1][:2] == [1, "q"]
    assert [line["line"]["color"] for line in lines] == ["@helpful", "@honest", "@merge"]
    curves = [[]]
    for x, y in zip(lines[0]["x"], lines[0]["y"], strict=True):
        if x is None:
            curves.append([])
        else:
            curves[-1].append((round(x), round(y)))
    assert [set(cells) for cells in curves[:-1]] == [{(0, 0)}, {(0, 1)}, {(1, 0)}, {(1, 1)}]


def test_the_sheet_shows_twelve_layers_around_the_open_one_and_stays_small():
    kinds = tuple("abcdefghi")
    fam = family(80, kinds, experts=("a", "b", "c", "d", "e", "f"))
    falling = np.geomspace(1, 0.01, 512)
    spectra = (*(spectrum(m, falling, 9) for m in fam.experts), spectrum("merge", falling))
    big = Look("d", fam, {}, {m.name: MatrixView(m, spectra, (), 0) for m in fam.matrices}, 0.1)
    figure = spectra_sheet(big, fam.at(40, "c")).figure
    assert figure["data"][0]["x"] == list(range(34, 46))
    assert len(json.dumps(figure)) < 100_000, len(json.dumps(figure))
    assert spectra_sheet(big, fam.at(79, "c")).figure["data"][0]["x"][-1] == 79


def test_tables_say_what_the_pictures_say():
    headers, rows = conflict_table(look(), "sign")
    assert headers == ["layer", "matrix", "helpful × math"]
    assert rows == [[0, "q", 50.0], [0, "down", 42.0], [1, "q", 63.0], [1, "down", None]]
    assert kept_table(look())[1][0] == [0, "q", 4, 2, 1]
    assert tail_table(look())[1][0] == [0, "q", 25.0, 50.0, 12.5, 100.0]
    assert spectrum_table(view(family().matrices[0]))[1][3] == [4, 0.5, 0.25, None]


def test_plotly_js_is_the_installed_packages_own():
    package = pytest.importorskip("plotly").__path__[0]
    ours = (ROOT / "assets" / "plotly.min.js").read_bytes()
    assert ours == (Path(package) / "package_data" / "plotly.min.js").read_bytes()
