"""The comparison as one picture, for the report and the page: an SVG that takes the page's colours inside the page.

One line a row: a filled dot for the mean of the three H, a ring for the least of them, each with its interval.
"""

from html import escape

from eval.paper.table import Comparison, Estimate

_LEFT, _WIDTH, _ROW, _TOP = 230, 420, 22, 28
_COLOURS = {
    "ink": "var(--ms-ink, #14181F)",
    "grey": "var(--ms-ink3, #626A76)",
    "line": "var(--ms-line, #D9DCD8)",
    "mixture": "var(--ms-teal, #0F6E66)",
    "source": "var(--ms-base, #696F78)",
}
_COLOUR_OF = {"mixture": "mixture", "base": "source", "expert": "source"}


def picture(comparison: Comparison) -> str:
    parts_of = comparison.parts()
    height = _TOP + (len(parts_of) + sum(map(len, parts_of.values()))) * _ROW + 26
    width = _LEFT + _WIDTH + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-size="13" '
        f'font-family="system-ui, sans-serif" aria-label="Mean and minimum of the three H, by row">',
        _shape("rect", width=width, height=height, style="fill:var(--ms-paper, #FFFFFF)"),
        _legend(),
    ]
    for tick in range(0, 101, 20):
        x = _LEFT + tick / 100 * _WIDTH
        parts.append(
            _shape("line", x1=x, x2=x, y1=_TOP, y2=height - 24, style=f"stroke:{_COLOURS['line']}")
            + _text(x, height - 8, str(tick), "grey", "middle")
        )
    y = _TOP - 0.5 * _ROW
    for part, rows in parts_of.items():
        y += _ROW
        parts.append(_text(_LEFT - 12, y + 6, part, "grey", "end"))
        for row in rows:
            y += _ROW
            colour = _COLOUR_OF.get(comparison.kinds[row], "ink")
            parts.append(_text(_LEFT - 12, y + 4.5, row, colour, "end"))
            mean, worst = comparison.mean(row), comparison.worst(row)
            says = f"<title>{escape(row)}: mean {mean.words()}, minimum {worst.words()}</title>"
            parts.append(f"<g>{says}{_dot(worst, y, colour, hollow=True)}{_dot(mean, y, colour)}</g>")
    return "\n".join((*parts, "</svg>")) + "\n"


def _dot(one: Estimate, y: float, colour: str, hollow: bool = False) -> str:
    low, value, high = (_LEFT + share / 100 * _WIDTH for share in (one.low, one.value, one.high))
    stroke = _COLOURS[colour]
    line = _shape("line", x1=low, x2=high, y1=y, y2=y, style=f"stroke:{stroke};stroke-width:1.5;opacity:.55")
    fill = "var(--ms-paper, #FFFFFF)" if hollow else stroke
    return line + _shape("circle", cx=value, cy=y, r=4.5, style=f"fill:{fill};stroke:{stroke};stroke-width:1.5")


def _legend() -> str:
    at = Estimate(0, 0, 0)
    said = ((0, "mean of the three H", False), (165, "minimum; lines: 95 % intervals", True))
    return "".join(
        f'<g transform="translate({x} 0)">{_dot(at, 15, "grey", hollow)}'
        f"{_text(_LEFT + 10, 19.5, words, 'grey', 'start')}</g>"
        for x, words, hollow in said
    )


def _text(x: float, y: float, words: str, colour: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill:{_COLOURS[colour]}">{escape(words)}</text>'
    )


def _shape(name: str, style: str, **numbers: float) -> str:
    places = " ".join(f'{key}="{round(value, 1):g}"' for key, value in numbers.items())
    return f'<{name} {places} style="{style}"/>'
