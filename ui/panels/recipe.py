"""Recipe: the merge as a file, as a command, and as a model to take away."""

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from merging.recipe import Recipe
from ui.pieces import Output, static, token_box
from ui.problem import problem_place
from ui.session import Session, recipe_of


@dataclass(frozen=True)
class RecipePanel:
    yaml: gr.Code
    apply: gr.Button
    upload: gr.UploadButton
    command: gr.HTML
    save: gr.Button
    saved: gr.HTML
    download: gr.File
    push: gr.Column  # shown once a merge was saved
    repo: gr.Textbox
    private: gr.Checkbox
    token: gr.Textbox
    send: gr.Button
    pushed: gr.HTML
    problem: gr.HTML

    @property
    def long(self) -> set[Output]:
        """What a long job changes."""
        return {self.download, self.saved, self.push, self.pushed}


def build() -> RecipePanel:
    static(
        '<div class="find"><h2>This merge as a file</h2>'
        '<p class="sub">In mergekit’s form. Change it here, then apply.</p></div>'
    )
    problem = problem_place()
    yaml = gr.Code(
        language="yaml", show_label=False, label="Recipe", interactive=True, lines=18, max_lines=30, elem_id="yaml"
    )
    with gr.Row(elem_classes=["slim"]):
        apply_ = gr.Button("Apply", variant="primary", min_width=90)
        upload = gr.UploadButton("Open a file…", file_types=[".yml", ".yaml"], file_count="single", min_width=90)
    static("<h2>The same on the command line</h2>")
    command = static(elem_classes=["command"])
    static('<h2>The model</h2><p class="help">Weights, tokenizer, chat template and recipe, zipped.</p>')
    with gr.Row(elem_classes=["slim"]):
        save = gr.Button("Save merge…", variant="secondary", min_width=90)
    saved = static()
    download = gr.File(visible=False, label="Merged model", interactive=False, elem_id="merged")
    with gr.Column(visible=False, elem_id="push") as push:
        static("<h2>To the Hub</h2>")
        pushed = static()
        repo = gr.Textbox(label="Repository", info="OWNER/NAME; a new or empty one. It gets all files in one commit.",
                          max_lines=1, placeholder="me/my-merge", interactive=True, elem_id="repo")  # fmt: skip
        token = token_box("One that may write. Used for this push, kept nowhere.", "push-token")
        private = gr.Checkbox(True, label="Private: only you see it", interactive=True)
        send = gr.Button("Push to the Hub", variant="secondary", min_width=90, elem_id="send")
    return RecipePanel(yaml, apply_, upload, command, save, saved, download, push, repo, private, token, send, pushed,
                       problem)  # fmt: skip


def draw(panel: RecipePanel, session: Session, probes: str) -> dict[Output, Any]:
    """`probes` are those that the page scores these models by."""
    recipe = recipe_of(session)
    return {panel.yaml: recipe.to_yaml(), panel.command: command_html(recipe, probes)}


def file_name(recipe: Recipe) -> str:
    """Letters and digits of the recipe's name, fit for a file."""
    kept = "".join(c if c.isalnum() and c.isascii() else "-" for c in recipe.name.lower()).strip("-")
    return kept[:40] or recipe.method


def command_html(recipe: Recipe, probes: str) -> str:
    name, asked = file_name(recipe), "" if probes == "town" else f" --probes {probes}"
    lines = (
        f"python -m merging check {name}.yml",
        f"python -m eval export {name}.yml merged/{name}",
        f"python -m eval score merged/{name}{asked}",
    )
    where = f'<p class="help">With the recipe as {name}.yml in the folder that this app was started in.</p>'
    return f"<pre>{escape(chr(10).join(lines))}</pre>{where}"
