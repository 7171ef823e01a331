"""The health check: seconds instead of a score, for whether a merge is broken and which way it leans."""

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from eval.judging.probes import H
from eval.scoring.health import Health
from merging.plots import roles
from ui.marks import label
from ui.pieces import Output, static
from ui.score_findings import health_finding


@dataclass(frozen=True)
class HealthPanel:
    check: gr.Button
    said: gr.HTML

    @property
    def outputs(self) -> set[Output]:
        return {self.check, self.said}


def build() -> HealthPanel:
    check = gr.Button("Check its health", variant="secondary", elem_id="check-health")
    return HealthPanel(check, static(elem_id="health", elem_classes=["sheet", "find"], visible=False))


def draw(panel: HealthPanel, health: Health | None) -> dict[Output, Any]:
    """None: not checked at these settings."""
    return {
        panel.check: gr.update(visible=health is None, interactive=True, value="Check its health"),
        panel.said: gr.update(value=health_html(health) if health else "", visible=health is not None),
    }


def busy(panel: HealthPanel) -> dict[Output, Any]:
    return {panel.check: gr.update(interactive=False, value="Checking…")}


def health_html(health: Health) -> str:
    """The finding, then a row a model."""
    models = list(health.perplexity)
    colours = roles([model for model in models if model not in ("merge", "base")])
    head = ("surprise", "distance from the merge", "the same next word", *(f"leans to good: {label(h, h)}" for h in H))
    rows = ""
    for model in models:
        near = health.near.get(model)
        cells = [
            f"{health.perplexity[model]:.2f}",
            "" if near is None else f"{near.forward:.4f} (up to {near.forward_p95:.2f}), back {near.backward:.4f}",
            "" if near is None else f"{100 * near.agreement:.0f} of 100",
            *(_margin(health, h, model) for h in H),
        ]
        shown = "".join(f"<td>{escape(cell).replace(' (', '<br>(')}</td>" for cell in cells)
        rows += f'<tr><th scope="row">{label(model, colours[model])}</th>{shown}</tr>'
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    return (
        f"{health_finding(health)}<table><thead><tr><td></td>{titles}</tr></thead><tbody>{rows}</tbody></table>"
        '<p class="help">Surprise: perplexity of good answers, 1 is none. Distance: KL divergence from the merge in '
        "nats a token, the median and the 95 % point, then the median of the way back. Leaning: how often the good "
        "answer is likelier than a bad one, then by how much on average, in nats a byte (an answer that a model never "
        "saw weighs much); in brackets how far the merge is ahead, with its 95 % interval.</p>"
    )


def _margin(health: Health, h: str, model: str) -> str:
    likelier, n = health.likelier(h, model)
    shown = f"{likelier} of {n}, {health.margin(h, model):+.2f}"
    if model != "merge":
        d = health.ahead(h, model)
        shown += f" ({d.mean:+.2f}: {d.low:+.2f} to {d.high:+.2f})"
    return shown.replace("-", "−")
