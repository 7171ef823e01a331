"""Under an answer: which experts it comes from, as small bars. Text in, escaped HTML out."""

from collections.abc import Mapping
from html import escape

from eval.chat import Routing
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
