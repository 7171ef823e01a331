"""What a calibration reads: prompts of each expert's own skill, answered by that expert itself, never a probe.

A file of JSON lines, each `{"expert": NAME, "messages": [{"role", "content"}, ...]}`; where the last message is the
assistant's, that is the answer, else the expert writes it. A line may also be `{"expert": NAME, "text": TEXT}`, read as
it stands. NAME is the last part of the expert's folder or id. `assets/calibration` holds Town's.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from eval.judging.probes import Message
from eval.running.runtime import answer_batch, encode, render
from merging.checkpoint import Checkpoint
from merging.errors import UserError
from merging.stage import names_in
from merging.words import shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from eval.running.models import Model, Models

LONGEST = 512  # tokens that are read of a text
ROUTED = 256  # texts of each expert that a router is fitted on, where there are so many
_BATCH = 100  # answers at a time; what a stopped run loses
FOLDER = Path(__file__).resolve().parents[2] / "assets" / "calibration"


class Text(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    expert: str
    messages: tuple[Message, ...] = ()
    text: str = ""

    @model_validator(mode="after")
    def _one(self) -> "Text":
        if bool(self.messages) == bool(self.text.strip()):
            raise ValueError("a line has `messages` or `text`")
        return self

    @property
    def is_open(self) -> bool:
        """Whether the expert still has to answer."""
        return bool(self.messages) and self.messages[-1].role != "assistant"

    def question(self) -> list[dict[str, str]]:
        """What the expert is asked, without its answer; other text as a question."""
        turns = self.conversation() or [{"role": "user", "content": self.text}]
        return turns[:-1] if turns[-1]["role"] == "assistant" else turns

    def answered(self, words: str) -> "Text":
        return self.model_copy(update={"messages": (*self.messages, Message(role="assistant", content=words))})

    def conversation(self) -> list[dict[str, str]]:
        return [message.model_dump() for message in self.messages]


def read_texts(name: str, experts: Sequence[str], each: int) -> list[list[Text]]:
    """For each expert its first `each` texts of a file, or of a set by name in `assets/calibration`."""
    own = FOLDER / f"{name}.jsonl"
    path = own if own.is_file() else Path(name)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.jsonl")))
        raise UserError(
            "E_TEXTS", "there is no such file of texts", where=shown(name, 200)[1:-1], do=f"Give a file, or: {known}."
        ) from error
    found: dict[str, list[Text]] = {expert: [] for expert in experts}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text = Text.model_validate_json(line)
        except ValidationError as error:
            what = f"{error.errors()[0]['msg']}"
            raise UserError("E_TEXTS", what, where=f"{path.name}, line {number}") from error
        if text.expert in found and len(found[text.expert]) < each:
            found[text.expert].append(text)
    if missing := [expert for expert, texts in found.items() if not texts]:
        names = sorted({json.loads(line)["expert"] for line in lines if line.strip()})
        what = f"it has no text for {', '.join(missing)}; its texts are for {', '.join(names[:8]) or 'nobody'}"
        raise UserError(
            "E_TEXTS", what, where=path.name, do='Each line names its expert: {"expert": ..., "messages": ...}.'
        )
    return list(found.values())


def read_for(name: str, experts: Sequence[Checkpoint], each: int) -> list[list[Text]]:
    """For each expert its texts; for one that is a merge as many in all, in equal parts of the experts in it.
    Experts of one name share out its texts: the first takes the first part of them.
    """
    groups = [list(dict.fromkeys(names_in(expert))) for expert in experts]
    twins = Counter(one for group in groups for one in group)
    own = dict(zip(twins, read_texts(name, list(twins), sys.maxsize), strict=True))
    for one, n in twins.items():
        if len(own[one]) < n:
            what = f"{n} experts are called {one}, and its texts for them are {len(own[one])}"
            raise UserError("E_TEXTS", what, where=Path(name).name, do="Give at least one text for each of them.")
    parts = {one: _parts(own[one], n) for one, n in twins.items()}
    return [[text for one in group for text in next(parts[one])[: ceil(each / len(group))]] for group in groups]


def _parts(texts: Sequence[Text], n: int) -> Iterator[Sequence[Text]]:
    return (texts[i * len(texts) // n : (i + 1) * len(texts) // n] for i in range(n))


def answer(
    models: "Models", experts: Sequence[Checkpoint], texts: Sequence[Sequence[Text]], log: Path
) -> Iterator[list[Text]]:
    """Each expert answers its open prompts greedily; yields all that are answered after each batch.

    Answers are kept in `log` as they come: a run that was stopped goes on after its last batch.
    """
    kept = [Text.model_validate_json(line) for line in log.read_text().splitlines()] if log.is_file() else []
    yield kept
    before = len(kept)
    for expert, own in zip(experts, texts, strict=True):
        for at in range(0, len(own), _BATCH):
            batch = own[at : at + _BATCH]
            if before >= len(batch):  # kept by an earlier run
                before -= len(batch)
                continue
            done = _answered(models, expert, batch)
            kept += done
            part = log.with_suffix(".part")
            part.write_text("".join(text.model_dump_json() + "\n" for text in kept))
            part.replace(log)
            yield kept


def _answered(models: "Models", expert: Checkpoint, texts: Sequence[Text]) -> list[Text]:
    open_ones = [text for text in texts if text.is_open]
    if not open_ones:
        return list(texts)
    model = models.model(expert)
    said = iter(answer_batch(model.module, model.tokenizer, [text.conversation() for text in open_ones]))
    return [text.answered(next(said)) if text.is_open else text for text in texts]


def most_read(model: "Model") -> int:
    """Tokens that a model reads of a text here."""
    return min(model.positions or LONGEST, LONGEST)


def answer_start(tokenizer: "PreTrainedTokenizerBase", text: Text) -> int:
    """Which of its tokens is the first of the answer; of other text the first."""
    return 0 if text.text else len(encode(tokenizer, *render(tokenizer, text.question())))


def token_ids(tokenizer: "PreTrainedTokenizerBase", text: Text) -> list[int]:
    """A conversation as the chat template writes it whole, other text as it stands."""
    if text.text:
        return encode(tokenizer, text.text, True)
    conversation = text.conversation()
    if tokenizer.chat_template:
        return encode(tokenizer, str(tokenizer.apply_chat_template(conversation, tokenize=False)), False)
    prompt, is_plain = render(tokenizer, conversation[:-1])
    return encode(tokenizer, f"{prompt} {conversation[-1]['content']}", is_plain)
