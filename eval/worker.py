"""The live worker: one process that answers slider moves and questions. It must start fast: no Gradio here.

Wire: `(id, request)` or `(id, "cancel")` come in; `(id, event)` ... and at last `(id, None)` go out, where a UserError
is an event too. Moves and questions have a thread each, so that neither waits for the other. A new Move of a session
cancels its earlier one. While there is no request, the moves' thread prepares the rank slider's other stops.
"""

import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any

from eval.judging.probes import Exam
from eval.running.chat import Mixing, Pair, RouteBy
from merging.errors import UserError
from merging.recipe import Recipe

if TYPE_CHECKING:
    from merging.fit import What

_REST = 0.4  # seconds after the last move before idle work begins: the page is drawn by the same processor
_PAUSE = 1.0  # seconds from a large family's pictures to its weights, which take all processors for long


@dataclass(frozen=True)
class Sources:
    """A family on screen: absolute folders, or names of `stages`, and the experts' names as shown."""

    base: str
    experts: tuple[str, ...]
    names: tuple[str, ...]
    stages: tuple[Recipe, ...] = ()


@dataclass(frozen=True)
class Move:
    """Show this recipe; `focus` is the tensor whose matrix is open. Answered by the events of merging/live.py.

    outputs: whether the map of the experts' outputs is in front; others get it where it costs little.
    """

    session: str
    sources: Sources
    recipe: Recipe
    focus: str | None
    outputs: bool = False


@dataclass(frozen=True)
class Ask:
    """One conversation for each model that is to answer: "base", "merge" or an expert's name. See running/chat.py."""

    session: str
    sources: Sources
    recipe: Recipe | None
    turns: dict[str, list[dict[str, str]]]
    temperature: float = 0.0
    max_new_tokens: int = 128
    seed: int = 0
    mixing: Mixing = field(default_factory=Mixing)
    pair: Pair | None = None  # of Duo
    route_by: RouteBy = "prompts"


@dataclass(frozen=True)
class Examine:
    """A health check of this recipe's merge. Answered by one `Health`, see eval/scoring/health.py."""

    session: str
    sources: Sources
    recipe: Recipe
    exam: Exam  # whose probes it reads some of


@dataclass(frozen=True)
class Why:
    """Which expert and which layers one answer hangs on. Answered by a `Without` each, see eval/scoring/why.py."""

    session: str
    sources: Sources
    recipe: Recipe
    names: tuple[str, ...]  # of the recipe's experts, as shown
    exam: Exam
    probe: str  # id, of the exam


@dataclass(frozen=True)
class FitOutputs:
    """The scale or the weights that keep most of the experts' outputs. Answered by one `Fit`, see merging/fit.py."""

    session: str
    sources: Sources
    recipe: Recipe
    what: "What"


Answer = Callable[[Any, Callable[[], bool]], Iterator[object]]


@dataclass(frozen=True, eq=False)
class _Job:
    id: int
    request: Move | Ask | Examine | Why | FitOutputs
    cancelled: Event = field(default_factory=Event)


def serve(connection: Connection) -> None:
    """Answers requests until the other end closes."""
    from eval.answering import Answering  # the page imports this file for its requests and need not load torch
    from eval.scoring.runs import data_folder

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches this process too; the page ends it
    under_way: dict[int, _Job] = {}
    moves: SimpleQueue[_Job | None] = SimpleQueue()  # None: a question is answered, so that there is time again
    questions: SimpleQueue[_Job] = SimpleQueue()
    replying, coming = Lock(), Event()

    def reply(job: _Job, event: object) -> None:
        with replying, suppress(BrokenPipeError, ConnectionResetError):  # the page is gone, and the loop below ends
            connection.send((job.id, event))

    answering = Answering(data_folder() / "live")

    def settle(job: _Job, answer: Answer) -> None:
        for event in _settled(partial(answer, job.request, job.cancelled.is_set), job.cancelled):
            reply(job, event)
        under_way.pop(job.id, None)
        reply(job, None)

    def pause() -> None:
        """Until a second has passed or a request comes: a move makes weights needless, a question may need them."""
        coming.clear()
        if len(under_way) == 1:
            coming.wait(_PAUSE)

    def move() -> None:
        rest = None
        while True:
            try:
                job = moves.get(timeout=rest)
            except Empty:
                # It stops for any request, not only for a move: answers need the processor as well.
                for _ in _settled(partial(answering.prepare, lambda: bool(under_way)), Event()):
                    pass
                rest = None
                continue
            if job:
                settle(job, partial(answering.move, rest=pause))
            rest = _REST

    def ask() -> None:
        while True:
            settle(questions.get(), answering.answer)
            moves.put(None)

    Thread(target=move, daemon=True).start()
    Thread(target=ask, daemon=True).start()
    Thread(target=answering.models, daemon=True).start()  # while the page is still being built
    while True:
        try:
            number, request = connection.recv()
        except (EOFError, ConnectionResetError):
            break
        if request == "cancel":
            if number in under_way:
                under_way[number].cancelled.set()
                coming.set()
            continue
        job = _Job(number, request)
        if isinstance(request, Move):
            for other in list(under_way.values()):
                if isinstance(other.request, Move) and other.request.session == request.session:
                    other.cancelled.set()
        under_way[number] = job
        coming.set()
        (moves if isinstance(request, Move) else questions).put(job)
    for job in list(under_way.values()):
        job.cancelled.set()


def _settled(answer: Callable[[], Iterator[object]], cancelled: Event) -> Iterator[object]:
    """The events of a request; an error is the last of them, and raised to nobody."""
    if cancelled.is_set():
        return
    try:
        yield from answer()
    except UserError as error:
        yield error
    except Exception:  # noqa: BLE001  one bad request must not end the process that serves all visitors
        traceback.print_exc()
        yield UserError(
            "E_INTERNAL",
            "Something went wrong here that should not have.",
            kept="Your settings are kept.",
            do="Try again; the terminal that runs Mergescope shows the details.",
        )
