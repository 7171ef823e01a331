"""Models on screen: each has a colour, a mark and its name, always together. Pure text in, escaped HTML out."""

from html import escape

from merging.plots.picture import NAMED, roles
from merging.plots.scale import Scale

__all__ = ["LOGO", "colour_bar", "finding", "label", "mark", "pair", "roles"]

LOGO = '<span class="logo" aria-hidden="true"><i></i><i></i><i></i></span>'


def mark(role: str) -> str:
    return f'<i class="mark r-{role}" aria-hidden="true"></i>'


def label(name: str, role: str, *, capital: bool = False) -> str:
    """The model's mark and bold name in its colour; `capital` is for the H's words, a file's name stays as it is."""
    shown = name.capitalize() if capital and name.startswith(NAMED) else name
    return f'<b class="who r-{role}">{mark(role)}{escape(shown)}</b>'


def pair(first: str, second: str, colours: dict[str, str]) -> str:
    """`[mark] helpful x [mark] honest`, the title of one conflict map."""
    return f'{label(first, colours[first])} <span class="times">×</span> {label(second, colours[second])}'


def finding(sentence: str, read: str) -> str:
    """What a picture says, and how to read it; both HTML."""
    return f'<h2>{sentence}</h2><p class="sub">{read}</p>'


def colour_bar(scale: Scale, hint: str = "") -> str:
    """One bar for all maps of a measure, its ends printed on it."""
    return (
        f'<div class="bar"><span>{escape(scale.left)} <b>{escape(scale.ends[0])}</b></span>'
        f'<i class="ramp" style="background:linear-gradient(to right,var(--ms-{scale.ramp}))"></i>'
        f"<span><b>{escape(scale.ends[1])}</b> {escape(scale.right)}</span>"
        f"<span>{escape(scale.note)}</span>" + (f'<span class="hint">{escape(hint)}</span>' if hint else "") + "</div>"
    )
