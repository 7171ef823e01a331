"""Models: what each model's headers say of it, whether they fit together, and more models from the Hub."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from merging.check_report import Report, report
from merging.errors import all_of
from merging.estimate import Estimate
from merging.hub import Found
from merging.passport import Passport
from merging.plan import Checked
from merging.plots import roles
from merging.recipe import Recipe
from merging.words import large
from ui.marks import label
from ui.panels.status import seconds
from ui.pieces import Output, static, token_box
from ui.problem import marked, problem_html, problem_place
from ui.session import names_of

_CLICKS = """element.addEventListener("click", (event) => {
  const hit = event.target.closest("[data-use]");
  if (hit) trigger("select", { use: hit.dataset.use, model: hit.closest("[data-model]").dataset.model });
});"""


@dataclass(frozen=True)
class PassportsPanel:
    finding: gr.HTML
    problem: gr.HTML
    table: gr.HTML
    costs: gr.HTML
    download: gr.Button
    search: gr.Textbox
    found: gr.HTML
    token: gr.Textbox

    @property
    def outputs(self) -> set[Output]:
        return {self.finding, self.problem, self.table, self.costs, self.download}


def build() -> PassportsPanel:
    finding = static(elem_classes=["find"])
    problem = problem_place()
    table = static(elem_classes=["passports"])
    costs = static()
    download = gr.Button("Download", variant="primary", visible=False, elem_id="download")
    static('<h2>More models</h2><p class="help">Found on the Hub, or typed as a folder. Nothing is downloaded yet.</p>')
    search = gr.Textbox(
        label="Find on the Hub", info="Type a few letters, OWNER/NAME, or a folder.", max_lines=1, interactive=True,
        elem_id="find-model",
    )  # fmt: skip
    found = gr.HTML(apply_default_css=False, js_on_load=_CLICKS, elem_classes=["found"])
    with gr.Accordion("Gated or private models: your Hub token", open=False, elem_classes=["twin"]):
        token = token_box("Used for this visit, kept nowhere.", "token")
    return PassportsPanel(finding, problem, table, costs, download, search, found, token)


def draw(panel: PassportsPanel, recipe: Recipe, checked: Checked) -> dict[Output, Any]:
    """The passports of a recipe's models, and what keeps them from merging."""
    found = report(recipe, checked)
    names = _names(recipe)
    costs = checked.plan.estimate if checked.plan else None
    missing = costs.download_bytes if costs else 0
    problem = problem_html(all_of(found.problems, kept="The last family is still open.")) if found.problems else ""
    return {
        panel.finding: finding_html(found, names),
        panel.problem: gr.update(value=problem, visible=bool(problem)),
        panel.table: table_html(found, names),
        panel.costs: costs_html(found, costs),
        panel.download: gr.update(visible=missing > 0, value=f"Download {size(missing)}"),
    }


def _names(recipe: Recipe) -> dict[str, str]:
    """What each model is called here: those of a merge that feeds the merge by its name too, since it has no folder."""
    experts = dict(zip((expert.model for expert in recipe.beside_base), names_of(recipe), strict=False))
    inner = {one.model: f"{one.name} (in {stage.name})" for stage in recipe.stages for one in stage.experts}
    return inner | experts | {recipe.base or "": "base"}


def found_html(typed: str, found: Iterable[Found]) -> str:
    """What was typed and what the search found, each with its two uses."""
    rows = {typed: "as typed"} | {
        one.id: " · ".join([*([size(one.n_bytes)] if one.n_bytes else []), *(["gated"] if one.gated else [])])
        for one in found
    }
    uses = "".join(
        f'<button type="button" class="fix" data-use="{use}">{words}</button>'
        for use, words in (("base", "Use as base"), ("expert", "Add as expert"))
    )
    return "".join(
        f'<p data-model="{escape(model)}"><b>{escape(model)}</b> <small>{escape(note)}</small> {uses}</p>'
        for model, note in rows.items()
    )


def finding_html(report: Report, names: Mapping[str, str]) -> str:
    n = len(report.models) - 1
    apart = [names.get(source, source) for source, phrases in report.differences if phrases]
    if report.problems:
        n_bad = len(report.problems)
        say = "<b>One problem</b> stands in the way." if n_bad == 1 else f"<b>{n_bad} problems</b> stand in the way."
    elif not n:
        say = "One model, and nothing to compare it with."
    elif not apart:
        who = "The expert fits" if n == 1 else f"All {n} experts fit"
        say = f"{who} the base: <b>same shapes, same vocabulary</b>."
    else:
        who = escape(apart[0][:40]) if len(apart) == 1 else f"{len(apart)} models"
        say = f"The models can be merged; <b>{who}</b> differ{'s' if len(apart) == 1 else ''} from the base a little."
    return f'<h2>{say}</h2><p class="sub">Told from headers and small files; no weight was read.</p>'


def table_html(report: Report, names: Mapping[str, str]) -> str:
    """One column a model; what differs from the base is bold."""
    models = report.models
    if not models:
        return ""
    shown = [names.get(model.source, model.source) for model in models]
    colours = roles(shown[1:])
    heads = "".join(f"<th scope=col>{label(name, colours.get(name, 'base'))}</th>" for name in shown)
    rows = []
    for title, cell in ROWS:
        cells = [cell(model) for model in models]
        if any(cells):
            tds = "".join(f"<td{'' if c == cells[0] else ' class=differs'}>{escape(c or '–')}</td>" for c in cells)
            rows.append(f"<tr><th scope=row>{title}</th>{tds}</tr>")
    apart = dict(report.differences)
    told = "".join(f"<td>{marked('; '.join(apart.get(m.source, ())) or 'nothing')}</td>" for m in models[1:])
    rows.append(f"<tr><th scope=row>differs from the base in</th><td>–</td>{told}</tr>" if told else "")
    return f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def costs_html(report: Report, costs: Estimate | None) -> str:
    lines = [f"Licence of the merge: {report.licence_words}"] if report.licence_words else []
    if costs:
        lines.insert(0, f"The merge: {large(costs.n_parameters)} parameters, {size(costs.disk_bytes)} of disk, about "
                        f"{size(costs.memory_bytes)} of memory and {seconds(costs.seconds)} on one core.")  # fmt: skip
    lines += report.notices[:6]
    return "".join(f'<p class="sub">{escape(line)}</p>' for line in lines)


def size(n_bytes: int) -> str:
    for unit, letter in ((1e9, "GB"), (1e6, "MB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:.3g} {letter}"
    return f"{n_bytes / 1e3:.0f} kB"


def _stored(model: Passport) -> str:
    alone = len(model.dtypes) == 1
    return ", ".join(name if alone else f"{name} {100 * share:.0f} %" for name, share in model.dtypes)


def _adapter(model: Passport) -> str:
    one = model.adapter
    return "" if one is None else f"{one.kind}, rank {one.rank}, alpha {one.alpha:g}"


ROWS = (
    ("architecture", lambda m: m.architecture or m.model_type or ""),
    ("parameters", lambda m: large(m.parameters) + (" tied" if m.tied else "")),
    ("adapter", _adapter),
    ("stored as", _stored),
    ("layers × width", lambda m: f"{m.layers} × {m.hidden_size}" if m.hidden_size else str(m.layers)),
    ("tokens", lambda m: str(m.tokens or "")),
    ("rows of the embedding", lambda m: str(m.vocab_rows or "")),
    ("tokenizer", lambda m: m.tokenizer or ""),
    ("chat template", lambda m: m.template or ""),
    ("ends at token", lambda m: ", ".join(map(str, m.eos_generation or m.eos))),
    ("licence", lambda m: m.licence),
    ("revision", lambda m: (m.commit or "")[:8]),
)
