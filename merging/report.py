"""What `profile` prints: one row a matrix and expert pair, as text, JSON or one page that needs no network."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any, get_args

from merging.analysis import Look, Matrix, MatrixView, Measure
from merging.errors import UserError
from merging.plots import Picture, conflict_map, row_name, rows_shown, scale_of

ASSETS = Path(__file__).parent.parent / "assets"
PAIRED: tuple[Measure, ...] = ("sign", "cosine", "shared", "interference")
TITLES = {"sign": "Sign conflict", "cosine": "Cosine", "shared": "Shared directions", "interference": "Interference",
          "kept": "Kept of each expert"}  # fmt: skip
MEANINGS = {
    "sign": "Share of the entries both experts moved that they push in opposite directions; chance is 50.",
    "cosine": "Cosine of two deltas, in hundredths.",
    "shared": "Overlap of the leading singular subspaces, of 100.",
    "interference": "Singular task interference of the pair, in hundredths of the singular values' sum.",
    "kept": "Cosine of the merged delta with each expert's own, in hundredths.",
}


def pair_rows(look: Look) -> Iterator[dict[str, Any]]:
    """One plain dictionary a matrix, ready for JSON."""
    for view in look.views.values():
        pairs = [{"experts": list(pair), **{measure: _value(look, measure, i, view.matrix) for measure in PAIRED}}
                 for i, pair in enumerate(look.family.pairs)]  # fmt: skip
        yield {**asdict(view.matrix), "pairs": pairs, "experts": _experts(look, view), "dropped": view.dropped,
               "merge": _spectrum(view, "merge")}  # fmt: skip


def text_table(look: Look) -> str:
    width = max((len(" and ".join(pair)) for pair in look.family.pairs), default=5)
    lines = [f"{'layer':>5} {'matrix':8} {'pair':{width}} {'sign':>6} {'cosine':>7} {'shared':>7} {'interference':>13}"]
    for view in look.views.values():
        for i, pair in enumerate(look.family.pairs):
            sign, cosine, shared, interference = (_value(look, measure, i, view.matrix) for measure in PAIRED)
            lines.append(f"{view.matrix.layer:>5} {view.matrix.kind:8} {' and '.join(pair):{width}} {sign:>6.3f} "
                         f"{cosine:>7.3f} {shared:>7.3f} {interference:>13.3f}")  # fmt: skip
    return "\n".join(lines)


def refuse_page(page: Path) -> None:
    """Fail early where the page could not be written, or would take the place of something."""
    if os.path.lexists(page):
        raise UserError("E_OUT_EXISTS", "this exists already.", where=str(page), kept="It was not touched.",
                        do="Choose another name for the page.")  # fmt: skip
    if not page.parent.is_dir():
        raise UserError("E_WRITE", "there is no such folder.", where=str(page.parent), do="Make it first.")


def html_report(look: Look, title: str, page: Path) -> None:
    """Write the page whole or not at all; `page` must be new."""
    temporary = page.with_name(f".{page.name}.partial")
    try:
        temporary.write_text(_page(look, title), encoding="utf-8")
        temporary.replace(page)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError("E_WRITE", f"cannot be written: {error.strerror}.", where=str(page)) from error


def _page(look: Look, title: str) -> str:
    script = (ASSETS / "figure.js").read_text(encoding="utf-8")
    pictures: list[Picture] = []
    parts = []
    for measure in get_args(Measure):
        conflict = look.conflicts[measure]
        if not conflict.rows:
            continue
        shown = rows_shown(conflict)
        scale = scale_of(conflict)
        parts.append(f"<h2>{TITLES[measure]}</h2><p>{MEANINGS[measure]} Left end of the scale: {escape(scale.left)}; "
                     f"right end: {escape(scale.right)}.</p><div class=pairs>")  # fmt: skip
        for row in shown:
            parts.append(f"<section><h3>{escape(row_name(conflict, row))}</h3>{_figure(len(pictures), 300)}</section>")
            pictures.append(conflict_map(look, measure, row, None))
        parts.append("</div>")
    data = json.dumps([{"figure": p.figure, "narrow": p.narrow, "label": p.label} for p in pictures])
    return f"""<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>{escape(title)}</title><style>{(ASSETS / "theme.css").read_text(encoding="utf-8")}{_STYLE}</style>
<body><h1>{escape(title)}</h1>{"".join(parts)}<h2>Every matrix and pair</h2><pre>{escape(text_table(look))}</pre>
<script>{(ASSETS / "plotly.min.js").read_text(encoding="utf-8")}</script>
<script>
if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.classList.add("dark");
function show(element, props, trigger, watch) {{ {script} }}
const pictures = {data.replace("<", chr(92) + "u003c")};
document.querySelectorAll("[data-picture]").forEach((element) =>
  show(element, {{ value: pictures[element.dataset.picture] }}, () => {{}}, () => {{}}));
</script></body></html>
"""


_STYLE = """
body { --font: system-ui, sans-serif; --font-mono: ui-monospace, monospace; font: 14px/20px var(--font); margin: 2rem; }
.pairs { display: flex; flex-wrap: wrap; gap: 1.5rem; } section { flex: 1 1 20rem; max-width: 36rem; min-width: 0; }
figure { margin: 0; } .png { display: none; } pre { overflow-x: auto; }
"""


def _figure(number: int, height: int) -> str:
    return (f'<div data-picture={number}><figure role=group><div class=plot style="min-height:{height}px"></div>'
            f'<a class=png href="#">PNG</a></figure></div>')  # fmt: skip


def _experts(look: Look, view: MatrixView) -> list[dict[str, Any]]:
    return [{"name": tail.model, **_spectrum(view, tail.model), "kept_cosine": _value(look, "kept", i, view.matrix),
             **{key: value for key, value in asdict(tail).items() if key != "model"}}
            for i, tail in enumerate(view.tails)]  # fmt: skip


def _spectrum(view: MatrixView, model: str) -> dict[str, Any]:
    found = next(spectrum for spectrum in view.spectra if spectrum.model == model)
    return {"kept_rank": found.kept, "stable_rank": found.stable_rank, "half_energy": found.half_energy}


def _value(look: Look, measure: Measure, row: int, matrix: Matrix) -> float:
    return float(look.conflicts[measure].values[row, look.family.kinds.index(matrix.kind), matrix.layer])
