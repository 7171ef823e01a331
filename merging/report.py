"""What `profile` prints: one row a matrix and expert pair, as text or as one page that needs no network."""

import json
from collections.abc import Sequence
from contextlib import suppress
from html import escape
from itertools import combinations
from pathlib import Path

from merging.errors import UserError
from merging.look import Conflict, Look, Measure, family_of, gather
from merging.plots import Picture, conflict_map, row_name, rows_shown, scale_of
from merging.profile import MatrixProfile

ASSETS = Path(__file__).parent.parent / "assets"
PAIRED: tuple[Measure, ...] = ("sign", "cosine", "shared", "interference")
TITLES = {"sign": "Sign conflict", "cosine": "Cosine", "shared": "Shared directions", "interference": "Interference"}
MEANINGS = {
    "sign": "Share of the entries both experts moved that they push in opposite directions; chance is 50.",
    "cosine": "Cosine of two deltas, in hundredths.",
    "shared": "Overlap of the leading singular subspaces, of 100.",
    "interference": "Singular task interference of the pair, in hundredths of the singular values' sum.",
}


def heading(names: Sequence[str]) -> str:
    measures = f"{'sign':>6} {'cosine':>7} {'shared':>7} {'interference':>13}"
    return f"{'layer':>5} {'matrix':8} {'pair':{_width(names)}} {measures}"


def text_rows(row: MatrixProfile, names: Sequence[str]) -> list[str]:
    """One line a pair, under `heading`."""
    return [
        f"{row.matrix.layer:>5} {row.matrix.kind:8} {' and '.join(p.pair):{_width(names)}} "
        f"{p.sign:>6.3f} {p.cosine:>7.3f} {p.shared:>7.3f} {p.interference:>13.3f}"
        for p in row.pairs
    ]


def html_report(rows: Sequence[MatrixProfile], names: Sequence[str], title: str, page: Path) -> None:
    """Write the page whole or not at all; `page` must be new."""
    temporary = page.with_name(f".{page.name}.partial")
    try:
        temporary.write_text(_page(rows, names, title), encoding="utf-8")
        temporary.replace(page)
    except OSError as error:
        with suppress(OSError):  # a name too long cannot be removed either
            temporary.unlink()
        raise UserError("E_WRITE", f"cannot be written: {error.strerror}.", where=str(page)) from error


def _page(rows: Sequence[MatrixProfile], names: Sequence[str], title: str) -> str:
    look = _look(rows, names)
    table = "\n".join([heading(names), *(line for row in rows for line in text_rows(row, names))])
    script = (ASSETS / "figure.js").read_text(encoding="utf-8")
    pictures: list[Picture] = []
    parts = []
    for measure in PAIRED if look.family.pairs else ():
        conflict = look.conflicts[measure]
        shown = rows_shown(conflict)
        scale = scale_of(conflict)
        parts.append(f"<h2>{TITLES[measure]}</h2><p>{MEANINGS[measure]} Left end of the scale: {escape(scale.left)}; "
                     f"right end: {escape(scale.right)}.</p><div class=pairs>")  # fmt: skip
        for row in shown:
            picture = conflict_map(look, measure, row, None)
            name = escape(row_name(conflict, row))
            parts.append(f"<section><h3>{name}</h3>{_figure(len(pictures), picture)}</section>")
            pictures.append(picture)
        parts.append("</div>")
    data = json.dumps([{"figure": p.figure, "narrow": p.narrow, "label": p.label} for p in pictures])
    return f"""<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>{escape(title)}</title><style>{(ASSETS / "theme.css").read_text(encoding="utf-8")}{_STYLE}</style>
<body><h1>{escape(title)}</h1>{"".join(parts)}<h2>Every matrix and pair</h2><pre>{escape(table)}</pre>
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


def _figure(number: int, picture: Picture) -> str:
    return (f'<div data-picture={number}><figure role=group><div class=plot style="height:{picture.height}px"></div>'
            f'<a class=png href="#">PNG</a></figure></div>')  # fmt: skip


def _look(rows: Sequence[MatrixProfile], names: Sequence[str]) -> Look:
    """The profile in the form the pictures take; it has no views, because it has no merge."""
    family = family_of(names, {row.matrix.name: row.matrix.shape for row in rows})
    conflicts = {}
    for measure in PAIRED:
        each = ((row.matrix, [getattr(pair, measure) for pair in row.pairs]) for row in rows)
        values = gather(family, len(family.pairs), each)
        conflicts[measure] = Conflict(measure, family.pairs, values)
    return Look("", family, conflicts, {}, 0.0)


def _width(names: Sequence[str]) -> int:
    return max((len(f"{a} and {b}") for a, b in combinations(names, 2)), default=4)
