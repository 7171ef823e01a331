"""Which experts an answer comes from: bars, marks in the text, a table. Text in, escaped HTML out."""

from collections.abc import Mapping
from html import escape

from eval.running.chat import Part, Routing
from ui.marks import label


def routing_html(routing: Routing, colours: Mapping[str, str]) -> str:
    """The choice first, then every expert's share as a number and a bar, then how it was decided."""
    chosen = ""
    if routing.choice:
        sure = f"{100 * routing.shares[routing.choice]:.0f} %"
        chosen = f"<p>from {label(routing.choice, colours[routing.choice])} <span>{sure}</span></p>"
    bars = "".join(
        f'<div class="r-{colours[name]}"><dt>{escape(name)}</dt><dd>{100 * share:.0f} %</dd>'
        f'<i style="width:{100 * share:.1f}%"></i></div>'
        for name, share in routing.shares.items()
    )
    return f'<div class="routing">{chosen}<dl>{bars}</dl><p class="help">{escape(routing.how)}</p></div>'


def marked(routing: Routing, colours: Mapping[str, str]) -> str:
    """The answer with each piece underlined in the colour and line of the expert that has most of it."""
    names = list(routing.shares)
    return "".join(
        f'<span class="part r-{colours[names[_most(part)]]}">{escape(part.text)}</span>' for part in routing.parts
    )


def table_html(routing: Routing) -> str:
    """What the marks show, for the keyboard and for readers of the screen."""
    names = list(routing.shares)
    of_each = bool(routing.scored) and all(len(part.scores) == len(names) for part in routing.parts)
    of_piece = bool(routing.scored) and not of_each
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in (*names, *of_piece * [routing.scored]))
    rows = "".join(
        f'<tr><th scope="row">{escape(part.text)}</th><td>{escape(names[_most(part)])}</td>'
        + "".join(
            f"<td>{100 * share:.0f} %{f' · {part.scores[t]:.2f}' if of_each else ''}</td>"
            for t, share in enumerate(part.shares)
        )
        + (f"<td>{part.scores[0]:.2f}</td>" if of_piece else "")
        + "</tr>"
        for part in routing.parts
    )
    note = f"Share of each expert · its {escape(routing.scored)}" if of_each else "Share of each expert"
    return (
        f'<div class="sheet" role="group" tabindex="0" aria-label="{escape(routing.model)}, piece by piece">'
        f'<table><caption class="help">{note}</caption><thead><tr><th scope="col">piece</th>'
        f'<th scope="col">most from</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _most(part: Part) -> int:
    return max(range(len(part.shares)), key=part.shares.__getitem__)
