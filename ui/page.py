"""All components of the page in one place, for the handlers to name."""

from dataclasses import dataclass
from functools import cached_property

import gradio as gr

from ui.controls import Controls
from ui.panels.board import BoardPanel
from ui.panels.chat import ChatPanel
from ui.panels.map import MapPanel
from ui.panels.method import MethodPanel
from ui.panels.models import ModelsPanel
from ui.panels.passports import PassportsPanel
from ui.panels.recipe import RecipePanel
from ui.panels.search import SearchPanel
from ui.panels.spectra import SpectraPanel
from ui.panels.status import StatusPanel
from ui.pieces import Output


@dataclass(frozen=True)
class Page:
    session: gr.State
    turns: gr.State  # what was said in Chat
    browser: gr.BrowserState  # owner, recipe and job, which outlive a reload
    status: StatusPanel
    problem: gr.HTML
    tabs: gr.Tabs
    models: ModelsPanel
    method: MethodPanel
    controls: Controls
    undo: gr.Button
    save: gr.Button
    map: MapPanel
    spectra: SpectraPanel
    chat: ChatPanel
    board: BoardPanel
    search: SearchPanel
    recipe: RecipePanel
    passports: PassportsPanel

    @cached_property
    def moving(self) -> set[Output]:
        """What a slider may change at once, also where another tab or matrix comes to the front meanwhile: tables wait
        (`settled`)."""
        return {self.session, self.status.line, self.method.card, self.method.preset, self.map.fitted,
                *self.map.pictures, *self.spectra.pictures}  # fmt: skip

    @cached_property
    def pictures(self) -> set[Output]:
        """What another tab, measure or matrix changes."""
        return {self.session, self.status.line, self.map.measure, *self.map.outputs, *self.spectra.outputs,
                self.chat.chips, self.chat.answers, *self.board.outputs, *self.search.outputs, self.recipe.yaml,
                self.recipe.command, *self.passports.outputs}  # fmt: skip

    @cached_property
    def typed(self) -> set[Output]:
        """What a visitor types or moves, and a run may change."""
        return {self.controls.weights, self.controls.knobs, self.models.base, self.models.experts, self.recipe.yaml}

    @cached_property
    def answers(self) -> set[Output]:
        """What a question changes."""
        return {self.turns, self.chat.question, self.chat.ask, self.chat.stop, self.chat.answers}

    @cached_property
    def long(self) -> set[Output]:
        """What a long job changes."""
        board = self.board.outputs
        return {
            self.tabs,
            self.browser,
            self.status.line,
            self.status.stop,
            self.map.fitted,
            *self.recipe.long,
            *board,
            *self.search.outputs,
        }

    @cached_property
    def settled(self) -> set[Output]:
        """What may follow a move a moment later."""
        return {self.browser, self.status.line, self.chat.chips, self.chat.answers, *self.board.outputs,
                self.recipe.yaml, self.recipe.command, self.map.table, self.spectra.table,
                self.spectra.row_table}  # fmt: skip

    @cached_property
    def desk(self) -> set[Output]:
        """What a preset, an undo or a file changes besides: every control."""
        method, models = self.method, self.models
        return {*self.controls.outputs, method.card, method.measure, method.more, method.roll, method.preset,
                *self.map.fit.values(), models.family, models.own, models.base, models.experts}  # fmt: skip
