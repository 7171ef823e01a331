"""Compare methods: the paper's comparison on Town, from the committed records. It belongs to no recipe."""

from functools import cache
from html import escape

import gradio as gr

from eval.judging.probes import H, load_probes
from eval.paper.insights import Insight, insights
from eval.paper.pairs import Pair, pairs
from eval.paper.picture import picture
from eval.paper.records import read_records
from eval.paper.table import Comparison, compare, widest
from ui.marks import label
from ui.pieces import static


def build() -> None:
    found = _committed()
    static(finding(found), elem_classes=["find"])
    if found is None:
        return
    with gr.Row(elem_classes=["duo"]):
        with gr.Column(scale=6, min_width=0):
            static(f'<h3 class="pic">Mean and minimum of the three H</h3>{picture(found)}', elem_classes=["sheet"])
        with gr.Column(scale=6, min_width=0):
            static(insights_html(insights(found)))
    static(table_html(found) + pairs_html(pairs(found)), elem_classes=["sheet"])


@cache
def _committed() -> Comparison | None:
    """Read once: only a new version of the app brings new records."""
    return compare(widest(read_records()), load_probes("town", "test").probes)


def finding(found: Comparison | None) -> str:
    if found is None:
        return '<h2>Nothing has been compared yet.</h2><p class="sub">Run <code>make paper</code>.</p>'
    row = found.chosen()
    assert row
    gap = found.mean_gap(row, *found.rows("mixture"))
    merge = f"<b>{escape(row)}</b>, the data-free merge chosen on validation,"
    if gap.low > 0:
        said = f"{merge} beats mixing the data by {gap.value:.0f} points."
    elif gap.high < 0:
        said = f"Mixing the data beats {merge} by {-gap.value:.0f} points."
    else:
        said = f"{merge} and mixing the data cannot be told apart."
    return f'<h2>{said}</h2>{_others(found)}<p class="sub">{_basis(found)}</p>'


def _others(found: Comparison) -> str:
    """What calibration and routing add: the mean against each mixture."""
    shown = {found.chosen("calibrated"): "calibrated", **dict.fromkeys(found.rows("router"), "several models at once")}
    mixtures, text = found.rows("mixture"), ""
    for row, kind in shown.items():
        said = "; ".join(f"{_FROM[pair.mean.verdict]} {escape(pair.other)}"
                         for pair in pairs(found) if pair.row == row and pair.other in mixtures)  # fmt: skip
        text += f'<p class="sub"><b>{escape(row)}</b>, {kind}: {said}.</p>' if row else ""
    return text


_FROM = {
    "above": "above",
    "below": "below",
    "level": "level with",
    "level or above": "level with or above",
    "level or below": "level with or below",
    "cannot tell": "not told from",
}


def _basis(found: Comparison) -> str:
    counts = ", ".join(f"{family} {paradigm} {n}" for (family, paradigm), n in found.seeds.items())
    return (f"In the mean, against the average of three mixtures. Training seeds by family and paradigm: "
            f"{escape(counts)}. A toy world: large models may differ.")  # fmt: skip


def insights_html(found: list[Insight]) -> str:
    items = "".join(
        f"<li><b>{escape(one.claim)}</b> <em>{one.verdict.capitalize()}</em>, as measured: {escape(one.found)}"
        f'<p class="help">{escape(one.rule)}</p></li>'
        for one in found
    )
    return f'<h3 class="pic">The paper’s three insights</h3><ol class="insights">{items}</ol>'


def table_html(found: Comparison) -> str:
    """Scores and the differences of the mean, with 95 % intervals, part by part."""
    mixtures = found.rows("mixture")
    heads = [*(label(h, h) for h in H), "mean", "minimum", "mean minus TSV-M", "mean minus mixtures"]
    bodies = ""
    for part, rows in found.parts().items():
        lines = "".join(_line(found, row, mixtures) for row in rows)
        bodies += f'<tbody><tr><th scope="rowgroup" colspan="{1 + len(heads)}">{part}</th></tr>{lines}</tbody>'
    head = "".join(f'<th scope="col">{one}</th>' for one in heads)
    title = "Probes passed, of 100 <small>95 % intervals over contents and seeds</small>"
    foot = "Made by <code>make paper</code>; <code>docs/paper.md</code> says how, and what was chosen."
    return (f'<h3 class="pic">{title}</h3><table><thead><tr><td></td>{head}</tr></thead>{bodies}</table>'
            f'<p class="help">{foot}</p>')  # fmt: skip


def _line(found: Comparison, row: str, mixtures: list[str]) -> str:
    scores = [*(found.side(row, h) for h in H), found.mean(row), found.worst(row)]
    gaps = [found.mean_gap(row, "TSV-M"), found.mean_gap(row, *mixtures)]
    cells = [*(one.words() for one in scores), *(one.signed() for one in gaps)]
    name = label(row, row) if row in (*H, "base") else escape(row)
    return f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def pairs_html(found: list[Pair]) -> str:
    """Calibrated merges and the router against their rivals; nothing where there are none."""
    if not found:
        return ""
    lines = "".join(
        f'<tr><th scope="row">{escape(pair.row)}</th><td>{escape(pair.other)}</td><td>{pair.mean.words()}</td>'
        f"<td>{pair.worst.words()}</td></tr>"
        for pair in found
    )
    return ('<h3 class="pic">Calibrated and routed, pair by pair <small>differences on the same probes</small></h3>'
            '<table><thead><tr><td></td><th scope="col">against</th><th scope="col">mean</th><th scope="col">minimum'
            f'</th></tr></thead><tbody>{lines}</tbody></table><p class="help">Above and below: p under 0.05 after '
            f"Holm’s correction for all {2 * len(found)} differences. Level: the interval stays inside 2 points; level "
            "or above: it stays above −2.</p>"
            )  # fmt: skip
