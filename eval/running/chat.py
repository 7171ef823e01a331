"""One question, many models: their answers stream side by side.

Each model reads the conversation through its own chat template, with its own earlier answers in it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from math import isfinite
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING, Literal, get_args

from merging.errors import UserError
from merging.events import Notice

if TYPE_CHECKING:  # the page imports the events below and must not wait for transformers
    from eval.running.models import Model
    from eval.running.smile import Mixture

MAX_PROMPT = 4000  # characters of one question
MAX_NEW_TOKENS = 512
MAX_TEMPERATURE = 2.0
BESIDE = ("router", "mixture", "duo")  # columns that are no model of their own
_TICK = 0.07  # seconds between two looks at the streams: each model sends at most one Token per tick

By = Literal["likelihood", "no refusal"]  # what Duo takes a draft by
RouteBy = Literal["prompts", "directions"]  # what the router chooses by; by directions too where there are no prompts
Message = Mapping[str, str]
Turns = Mapping[str, Sequence[Message]]


@dataclass(frozen=True)
class Prompt:
    """What the model reads, exactly: the conversation through its chat template."""

    model: str
    text: str


@dataclass(frozen=True)
class Token:
    """The whole answer so far."""

    model: str
    text: str


@dataclass(frozen=True)
class Answered:
    model: str
    text: str
    seconds: float
    n_tokens: int


@dataclass(frozen=True)
class Part:
    """A piece of an answer: each expert's share in it, and what the shares were decided by: a score of each expert, in
    their order, or one of the piece.
    """

    text: str
    shares: tuple[float, ...]
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Routing:
    """Which experts an answer comes from, and `how` that was decided: shares by expert; `choice` where it is one.

    parts: the answer in pieces, where these come from different experts; `scored` says what their scores are.
    """

    model: str
    how: str
    shares: Mapping[str, float]
    choice: str = ""
    parts: tuple[Part, ...] = ()
    scored: str = ""


ChatEvent = Prompt | Token | Answered | Routing | Notice


@dataclass(frozen=True)
class Decoding:
    temperature: float = 0.0
    max_new_tokens: int = 128
    seed: int = 0


@dataclass(frozen=True)
class Mixing:
    """How a mixture (`eval/running/smile.py`) routes. The defaults of the ranks are FusionBench's for language models.

    rank: directions of each expert's part; gate_rank: of those that its gate looks at; top: experts at a time. More
    than there are means all; a gate that looks at all directions of the inputs tells experts apart no more.
    """

    rank: int = 64
    gate_rank: int = 8
    top: int = 1

    def __post_init__(self) -> None:
        if min(self.rank, self.gate_rank, self.top) < 1:
            raise UserError("E_MIXING", "Rank, gate rank and experts at a time must be at least 1.")

    @property
    def most(self) -> int:
        """How many triplets it needs of each expert."""
        return max(self.rank, self.gate_rank)


@dataclass(frozen=True)
class Pair:
    """Duo's two models by name (`duo.py`). threshold: of the likelihood; step: most tokens of a piece, which also ends
    with a sentence.
    """

    drafter: str
    second: str
    by: By = "likelihood"
    threshold: float = 0.7
    step: int = 16

    def __post_init__(self) -> None:
        if self.drafter == self.second or not (self.drafter and self.second):
            raise UserError("E_DUO", "Duo needs two different models.", do="Choose who drafts and who takes.")
        if not (0 <= self.threshold <= 1 and self.step >= 1 and self.by in get_args(By)):
            raise UserError("E_DUO", "The threshold must lie between 0 and 1, and a piece must have a token.")


def check_question(turns: Turns, decoding: Decoding) -> None:
    """Raises a UserError for what no model could answer, before anything is loaded."""
    if not turns:
        raise UserError("E_CHAT", "No model was asked.", do="Choose at least one model.")
    for messages in turns.values():
        question = messages[-1].get("content", "") if messages else ""
        if not question.strip():
            raise UserError("E_CHAT_EMPTY", "There is no question.", do="Write one and send it again.")
        if len(question) > MAX_PROMPT:
            raise UserError(
                "E_CHAT_LONG",
                f"The question has {len(question):,} characters; {MAX_PROMPT:,} are allowed.",
                do="Shorten it.",
            )
    if not (isfinite(decoding.temperature) and 0 <= decoding.temperature <= MAX_TEMPERATURE):
        raise UserError("E_CHAT", f"The temperature must lie between 0 and {MAX_TEMPERATURE:g}.")
    if not 1 <= decoding.max_new_tokens <= MAX_NEW_TOKENS:
        raise UserError("E_CHAT", f"The length must lie between 1 and {MAX_NEW_TOKENS} tokens.")
    if not 0 <= decoding.seed < 2**63:
        raise UserError("E_CHAT", "The seed must be a whole number from 0.")


def converse(
    models: Mapping[str, "Model"],
    turns: Turns,
    decoding: Decoding,
    stopped: Callable[[], bool],
    experts: Sequence[str] = (),
) -> Iterator[ChatEvent]:
    """Prompts first, then the answers as they grow, then each answer whole. `stopped` ends all within one token.

    experts: the names of those that a mixture mixes, in its order.
    """  # fmt: skip
    streams = []
    for name, model in models.items():
        stream = _Stream(name, model, decoding, experts)
        yield from stream.prepare(turns[name])
        if stream.room > 0:
            streams.append(stream)
    if not streams:
        return
    closed = Event()
    with ThreadPoolExecutor(len(streams)) as pool:
        try:
            pending = {
                pool.submit(stream.run, len(streams), lambda: closed.is_set() or stopped()): stream
                for stream in streams
            }
            while pending:
                done, _ = wait(pending, timeout=_TICK, return_when=FIRST_COMPLETED)
                for stream in pending.values():
                    if stream.has_news():
                        yield Token(stream.name, stream.text())
                for future in done:
                    future.result()  # what went wrong in the thread goes wrong here
                    yield from pending.pop(future).finish()
        finally:  # also when the reader leaves early: the pool waits for its threads
            closed.set()


@dataclass
class _Stream:
    """One model's answer while it grows. `run` is called in a thread of its own and only appends to `tokens`."""

    name: str
    model: "Model"
    decoding: Decoding
    experts: Sequence[str]
    prompt: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    choices: list[tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=list)  # a mixture's, by token
    room: int = 0  # tokens the answer may have
    seconds: float = 0.0
    seen: int = 0

    def prepare(self, messages: Sequence[Message]) -> Iterator[ChatEvent]:
        from eval.running.runtime import encode, render

        tokenizer = self.model.tokenizer
        text, plain = render(tokenizer, messages, self.name)
        if plain:
            yield Notice(
                f"{self.name} has no chat template; it reads plain lines that begin with User: and Assistant:."
            )
        yield Prompt(self.name, text)
        self.prompt = encode(tokenizer, text, plain)
        positions = self.model.positions
        if self.model.mixture and self.model.mixture.left_out:
            yield Notice(f"In {self.model.mixture.left_out} matrices of the mixture only the base speaks: their layers "
                         "cannot be followed.")  # fmt: skip
        self.room = self.decoding.max_new_tokens
        if positions is not None:
            self.room = min(self.room, positions - len(self.prompt))
        if self.room <= 0:
            yield Notice(
                f"{self.name} was not asked: it can read {positions} tokens, the conversation has {len(self.prompt)}. "
                "Start a new conversation."
            )

    def run(self, n_streams: int, stopped: Callable[[], bool]) -> None:
        from eval.running.runtime import stream, use_cores

        began = perf_counter()
        use_cores(self.model.module, n_streams)
        stream(
            self.model.module,
            self.model.tokenizer,
            self.prompt,
            max_new_tokens=self.room,
            temperature=self.decoding.temperature,
            seed=self.decoding.seed,
            put=self._put,
            stopped=stopped,
        )
        self.seconds = perf_counter() - began

    def _put(self, token: int) -> None:
        if self.model.mixture:
            self.choices.append(self.model.mixture.choice())
        self.tokens.append(token)

    def has_news(self) -> bool:
        before, self.seen = self.seen, len(self.tokens)
        return self.seen > before

    def text(self) -> str:
        """What the tokens seen so far say; a letter whose bytes have not all come is left out."""
        text = self.model.tokenizer.decode(self.tokens[: self.seen], skip_special_tokens=True)
        return str(text).rstrip("�").strip()

    def finish(self) -> Iterator[ChatEvent]:
        self.seen = len(self.tokens)
        if self.seen == self.room < self.decoding.max_new_tokens:
            yield Notice(
                f"{self.name} had to stop after {self.room} tokens: it can read {self.model.positions} in all."
            )
        if self.model.mixture:
            yield self._routing(self.model.mixture)
        yield Answered(self.name, self.text(), self.seconds, self.seen)

    def _routing(self, mixture: "Mixture") -> Routing:
        """Token by token; what says nothing, such as the end, has no part of its own."""
        decode = partial(self.model.tokenizer.decode, skip_special_tokens=True)
        so_far = [str(decode(self.tokens[:i])).rstrip("�").lstrip() for i in range(len(self.tokens) + 1)]
        pieces = [after[len(before):] for before, after in pairwise(so_far)]  # fmt: skip
        parts = tuple(Part(piece, *choice) for piece, choice in zip(pieces, self.choices, strict=True) if piece)
        means = [sum(column) / len(self.choices) for column in zip(*(own for own, _ in self.choices), strict=True)]
        m = mixture.mixing
        how = f"SMILE, rank {m.rank}, gate rank {m.gate_rank}, {m.top} at a time"
        return Routing(self.name, how, dict(zip(self.experts, means, strict=True)), "", parts, "gate")
