"""What follows a move while the visitor goes elsewhere: a real page's handlers and a real merge, held lean in a process
of its own so that its first pictures are sketches."""

import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import gradio as gr
import pytest
import torch

from benchmarks import family as synthetic
from eval.judging.probes import Exam
from eval.worker import Move
from merging.checkpoint import open_checkpoint
from merging.errors import UserError
from merging.live import LiveMerge
from merging.live_events import FocusReady
from merging.plan import make_plan
from merging.recipe import Expert, Recipe
from ui import history, looking
from ui.ballots import ask_two
from ui.checks import examine
from ui.desk import apply_recipe, restored, start
from ui.fitting import take_safest
from ui.jobs import Jobs, LiveWorker
from ui.layout import lay_out
from ui.live import Updates, as_seen, change_method, draw, draw_file, follow, hold, kept, move, settled, sources_of
from ui.long import save, score_apart, score_first, watch
from ui.looking import pick_matrix, pick_measure, select_tab
from ui.measuring import take_measured
from ui.page import Page
from ui.searching import start as search
from ui.services import Services, _presets, keep, newest
from ui.session import Session, recipe_of
from ui.talk import ask

Q, DOWN = "model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight"
ROOT = Path(__file__).resolve().parents[2]


def lean(connection: Connection) -> None:
    """Moves of one family, each from nothing."""
    torch.set_num_threads(1)  # OpenMP's other threads are not in the fork
    while True:
        number, asked = connection.recv()
        if asked == "cancel":
            continue
        sources = asked.sources
        base, *experts = (open_checkpoint(folder, Path()) for folder in (sources.base, *sources.experts))
        merge = LiveMerge(base, experts, sources.names, None, whole=0)
        for event in merge.move(make_plan(asked.recipe), asked.focus, lambda: False, outputs=asked.outputs):
            if not isinstance(event, FocusReady):  # of so small a family they are never drawn
                connection.send((number, event))
        connection.send((number, None))


def overtaken(connection: Connection) -> None:
    """Every move is cancelled before its first picture."""
    while True:
        connection.send((connection.recv()[0], None))


class Answered(list[object]):
    """A stream of which all is there."""

    def __init__(self, number: int, events: Iterable[object]) -> None:
        super().__init__(events)
        self.number = number


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(synthetic.SIZES, "one", (320, 512, 1, 64, 4, 4))
        folder = synthetic.make_family("one", tmp_path_factory.mktemp("family"))
    settings = {"rank_budget": 0.3, "exclude": ("*embed*", "*lm_head*")}
    experts = tuple(Expert(str(folder / name), (("weight", 1.0),)) for name in synthetic.EXPERTS)
    return Session(Recipe("resm", str(folder / "base"), experts, tuple(settings.items()), folder=folder), "o")


@pytest.fixture(scope="module", autouse=True)
def _forks() -> Iterator[None]:
    """Workers begin in no time: a spawned one imports all that this file does."""
    fork = multiprocessing.get_context("fork")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ui.jobs.multiprocessing.get_context", lambda _: fork)
        yield


@pytest.fixture(scope="module")
def worker() -> Iterator[LiveWorker]:
    made = LiveWorker(lean)
    yield made
    made.close()


@pytest.fixture
def services(worker: LiveWorker, tmp_path: Path) -> Services:
    return Services(ROOT, tmp_path, worker, Jobs(tmp_path / "jobs"), _presets(), ROOT / "assets" / "town")


@pytest.fixture(scope="module")
def page(worker: LiveWorker, tmp_path_factory: pytest.TempPathFactory) -> Page:
    home = tmp_path_factory.mktemp("home")
    with gr.Blocks():
        return lay_out(Services(ROOT, home, worker, Jobs(home), _presets(), ROOT / "assets" / "town"), {})


def until(drawn: Iterator[dict], services: Services, session: Session, tier: str) -> None:
    for _ in drawn:
        if services.looks[session.id].tier == tier:
            return


def test_the_exact_pictures_are_drawn_on_the_tab_that_has_come_to_the_front(services, page, session):
    hold(services, page, session)
    opening = follow(services, page, session, whole=True)
    until(opening, services, session, "sketch")
    (shown,) = select_tab(services, page, "spectra", newest(services, session), ())
    assert page.spectra.matrix in shown
    *_, exact = opening
    assert services.looks[session.id].tier == "exact"
    assert page.spectra.matrix in exact
    assert page.spectra.sheet in exact
    assert page.map.matrix not in exact


def test_the_matrix_that_was_opened_meanwhile_stays_open_and_gets_its_exact_numbers(services, page, session):
    hold(services, page, session)
    opening = follow(services, page, session, whole=True)
    until(opening, services, session, "maps")
    list(pick_matrix(services, page, newest(services, session), (), "0", "down"))
    for drawn in opening:
        assert "down" in drawn[page.map.matrix_title]
    assert newest(services, session).focus == DOWN
    assert services.looks[session.id].tier == "exact"


def test_a_measure_chosen_meanwhile_waits_for_its_maps_and_gets_them(services, page, session):
    hold(services, page, session)
    opening = follow(services, page, session, whole=True)
    until(opening, services, session, "sample")
    (waiting,) = pick_measure(services, page, newest(services, session), (), "shared")
    assert "the maps follow" in waiting[page.map.finding]
    *_, exact = opening
    assert "hared" in exact[page.map.finding]
    assert exact[page.map.columns[0]] == gr.update(visible=True)


def test_a_slider_moved_among_the_sketches_redraws_no_more_than_its_handler_may(services, page, session):
    hold(services, page, session)
    until(follow(services, page, session, whole=True), services, session, "sketch")
    weights = {"method": "", "said": {"weight": [0.5, 1.0, 1.0]}}
    *_, exact = moved = list(move(services, page, newest(services, session), weights))
    assert set().union(*moved) <= {*page.moving, page.problem, page.method.measure}
    assert "sketch" not in exact[page.map.matrix_title]
    assert services.looks[session.id].digest == make_plan(newest(services, session).recipe).digest


def test_a_move_that_is_drawn_late_leaves_the_card_of_the_method_that_was_chosen_meanwhile(services, page, session):
    hold(services, page, session)
    list(follow(services, page, session, whole=True))
    chosen = change_method(services, page, session, "ties")

    def ask(asked: object) -> object:
        assert page.method.card in next(chosen)
        return services.worker.ask(asked)

    late = replace(services, worker=SimpleNamespace(ask=ask))
    drawn = set().union(*move(late, page, session, {"method": "", "said": {"weight": [0.5, 1.0, 1.0]}}))
    assert page.map.matrix in drawn
    assert not drawn & {page.method.card, page.session}


def test_another_family_that_a_move_overtakes_leaves_the_desk_as_it_is(services, page, session):
    hold(services, page, session)
    two = replace(session.recipe, experts=session.recipe.experts[:2])
    worker = LiveWorker(overtaken)
    assert list(apply_recipe(replace(services, worker=worker), page, session, (), two)) == []
    worker.close()
    assert newest(services, session) == session


def while_asked(services: Services, meanwhile: Callable[[], object], *, cancels: bool = True) -> Services:
    """The same page, where `meanwhile` happens between the first question to the worker and its answer, which then
    does not come where it `cancels`."""
    left = [meanwhile]

    def ask(asked: object) -> object:
        if not left:
            return services.worker.ask(asked)
        stream = [] if cancels else services.worker.ask(asked)
        number = getattr(stream, "number", 0)
        left.pop()()
        return Answered(number, stream)

    return replace(services, worker=SimpleNamespace(ask=ask))


def test_another_family_opens_also_where_the_visitor_looks_elsewhere_meanwhile(services, page, session):
    hold(services, page, session)
    two = replace(session.recipe, experts=session.recipe.experts[:2])
    elsewhere = while_asked(services, lambda: list(select_tab(services, page, "spectra", session, ())))
    assert page.spectra.matrix in set().union(*apply_recipe(elsewhere, page, session, (), two))
    assert newest(services, session).recipe == two
    assert newest(services, session).tab == "spectra"
    assert len(services.looks[session.id].family.experts) == 2


def test_a_move_that_a_later_one_overtook_draws_nothing_over_it_but_keeps_what_it_changed(services, page, session):
    hold(services, page, session)
    again = while_asked(services, lambda: list(follow(services, page, newest(services, session), whole=True)))
    assert [set(drawn) for drawn in move(again, page, session, {"method": "", "said": {"weight": [0.5, 1, 1]}})] == [
        {page.session, page.map.fitted, page.method.preset, page.method.card}
    ]
    assert services.looks[session.id].digest == make_plan(newest(services, session).recipe).digest
    further = newest(services, session)
    back = while_asked(services, lambda: list(follow(services, page, session, whole=True)), cancels=False)
    assert list(follow(back, page, further, whole=True)) == []
    assert services.looks[session.id].digest == make_plan(session.recipe).digest


def test_a_move_draws_after_the_tab_that_was_chosen_before_it(services, page, session, monkeypatch):
    hold(services, page, session)
    list(follow(services, page, session, whole=True))
    before = services.looks[session.id]
    events = list(services.worker.ask(Move("other", sources_of(session), session.recipe, None)))
    answered = replace(services, worker=SimpleNamespace(ask=lambda _: Answered(10**9, events)))
    moving = Thread(target=lambda: list(follow(answered, page, session, whole=True)))

    def slowly(*asked: object) -> Updates:
        moving.start()
        moving.join(0.5)
        assert services.looks[session.id] is before
        return draw(*asked)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(looking, "draw", slowly)
    assert list(select_tab(services, page, "spectra", session, ()))
    moving.join()
    assert services.looks[session.id] is not before


def test_what_is_pressed_acts_on_a_slider_whose_last_step_still_waits_for_the_one_before(services, page, session):
    hold(services, page, session)
    last, none = {"method": "", "said": {"weight": [0.25, 1, 1]}}, {"method": "resm", "said": {}}
    pressed = as_seen(lambda services, page, session, turns, repo: iter([{repo: session.recipe.experts[0]}]))

    def weight_pressed() -> float:
        (said,) = pressed(services, page, newest(services, session), (), "repo", last, none)
        return dict(said["repo"].parameters)["weight"]

    assert weight_pressed() == 1.0  # no slider has moved: what the columns say else is older than the desk
    moving = move(services, page, session, {"method": "", "said": {"weight": [0.5, 1, 1]}})
    next(moving)
    assert weight_pressed() == 0.25
    list(moving)
    assert weight_pressed() == 0.25
    hold(services, page, replace(session, recipe=replace(session.recipe, name="another")))
    assert weight_pressed() == 1.0


def test_a_reload_before_a_move_is_done_brings_its_settings_back(services, page, session):
    owner = "0" * 32
    stored = {"owner": owner, "recipe": session.recipe.to_yaml(), "job": ""}
    further = Recipe("tsv_m", session.recipe.base, session.recipe.experts, folder=session.recipe.folder)
    for recipe, whose in ((session.recipe, owner), (further, owner), (session.recipe, "1" * 32)):
        hold(services, page, Session(recipe, whose))
    assert restored(services, stored).recipe.method == "tsv_m"
    assert restored(services, stored | {"owner": "2" * 32}).recipe.method == session.recipe.method
    services.sessions.clear()
    assert restored(services, stored).recipe.method == session.recipe.method


def test_what_settles_after_one_move_takes_nothing_from_the_next(services, page, session):
    hold(services, page, session)
    list(follow(services, page, session, whole=True))
    drawn = follow(services, page, session, whole=True)
    first = next(drawn)  # the second is under way
    list(settled(services, page, session, ()))
    assert services.ready[session.id] == services.looks[session.id].digest
    assert first
    assert len(list(drawn)) == 3


def test_what_settles_late_says_nothing_where_the_next_move_has_drawn_its_own(services, page, session, monkeypatch):
    board = replace(session, tab="board")
    hold(services, page, board)
    list(follow(services, page, board, whole=True))
    work_out = history.tried

    def slowly(*asked: object) -> object:
        keep(services.looks, board.id, replace(services.looks[board.id]))  # meanwhile
        return work_out(*asked)

    assert any(page.status.line in drawn for drawn in settled(services, page, board, ()))
    monkeypatch.setattr(history, "tried", slowly)
    assert not any(page.status.line in drawn for drawn in settled(services, page, board, ()))


def test_recipe_has_its_text_before_it_is_opened_so_that_nothing_comes_over_what_is_typed_at_once(
    services, page, session
):
    hold(services, page, session)
    list(follow(services, page, session, whole=True))
    *_, last = settled(services, page, session, ())
    assert last[page.recipe.yaml] == session.recipe.to_yaml()
    assert not [one for one in select_tab(services, page, "recipe", session, ()) if page.recipe.yaml in one]


def test_the_status_line_speaks_of_the_merge_in_the_pictures_where_the_one_on_the_desk_does_not_merge(
    services, page, session
):
    hold(services, page, session)
    list(follow(services, page, session, whole=True))
    choosing = change_method(services, page, session, "regmean")
    with pytest.raises(UserError, match="not measured yet"):
        list(choosing)
    picking = pick_measure(services, page, newest(services, session), (), "kept")
    drawn = next(picking)
    assert newest(services, session).recipe.method == "regmean"
    assert "RESM" in drawn[page.status.line]
    with pytest.raises(UserError, match="not measured yet"):  # and the problem stays
        next(picking)
    waiting = newest(services, session)
    assert history.recalled(waiting, services.looks[session.id].digest, Exam("town")) is None
    said = {page.session: waiting, page.chat.question: "Who are you?", page.turns: ()}
    for asked in (
        score_first(services, page, waiting, ()), score_apart(services, page, waiting, ()),
        save(services, page, waiting, ()), search(services, page, waiting, (), "tpe", "mean", 4, None),
        examine(services, page, waiting, ()), ask_two(services, page, waiting, (), ""), ask(services, page, said),
    ):  # fmt: skip
        with pytest.raises(UserError, match="RegMean merges by what the experts read") as refused:
            next(asked)
        assert refused.value.do == "Press Measure the experts."


def test_what_a_stop_kept_is_said_until_the_next_move(services, page, session):
    hold(services, page, session)
    list(follow(services, page, session, whole=True))
    job = services.jobs.start(services.jobs.new_id(), "o", "save", "{}", [])
    services.jobs.stop(job)
    *_, stopped = watch(services, page, session, (), job)
    late = next(pick_measure(services, page, newest(services, session), (), "kept"))  # of a click before the stop
    for drawn in (stopped, late):
        assert "<b>Stopped.</b> Nothing was saved." in drawn[page.status.line]
    *_, moved = follow(services, page, newest(services, session), whole=True)
    assert "Stopped" not in moved[page.status.line]


def test_a_reload_keeps_a_desk_that_waits_for_its_measurement_behind_another_picture_of_its_models(
    services, page, session
):
    hold(services, page, session)
    with pytest.raises(UserError, match="not measured yet"):
        list(change_method(services, page, session, "regmean"))
    waiting = newest(services, session).recipe
    with pytest.raises(UserError, match="not measured yet"):
        list(start(services, page, kept(services, newest(services, session))))
    *_, opened = services.sessions.values()
    assert opened.id != session.id
    assert opened.recipe.to_yaml() == waiting.to_yaml()
    drawn = services.drawn[opened.id]
    assert (drawn.method, drawn.sources, drawn.calibration) == ("resm", waiting.sources, None)
    assert list(take_measured(services, page, opened, ())) == [], "it is not there yet"


def test_the_editor_is_sent_another_recipe_alone(services, page, session):
    other = replace(session, recipe=replace(session.recipe, seed=7))
    sent = [draw_file(services, page, one).get(page.recipe.yaml, "") for one in (session, session, other, session)]
    assert [bool(text) for text in sent] == [True, False, True, True]
    assert "seed: 7" in sent[2]


def test_what_a_fit_for_safety_found_comes_once_also_after_a_reload_and_only_where_the_desk_is_as_it_was(
    services, page, session
):
    found = replace(session.recipe, parameters=(*session.recipe.parameters, ("lambda", 0.5)))
    for digest, arrives in (("of another merge", False), (make_plan(recipe_of(session)).digest, True)):
        hold(services, page, session)
        job = services.jobs.start(services.jobs.new_id(), "o", "safest", json.dumps({"digest": digest}), [])
        (services.jobs.folder(job.id) / "best.yml").write_text(found.to_yaml())
        keep(services.current, "o", job)
        assert list(services.jobs.follow(job)) == []  # it has ended
        drawn = list(take_safest(services, page, session, ()))
        assert bool(drawn) == arrives
        assert dict(newest(services, session).recipe.parameters).get("lambda") == (0.5 if arrives else None)
    hold(services, page, session)  # an undo
    assert list(take_safest(services, page, session, ())) == []
