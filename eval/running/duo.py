"""Duo: one model drafts a piece of the answer, another takes it or writes the piece itself.

After reward-guided speculative decoding (arXiv 2501.19324): a draft is taken where its score r is at least a threshold.
No reward model is at hand, so r is how likely the second model finds the draft, or whether the answer refuses.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

import torch

from eval.judging.refusals import refuses
from eval.running.chat import Answered, ChatEvent, Decoding, Pair, Part, Prompt, Routing, Token
from eval.running.runtime import encode, greedy, render, stream, use_cores
from merging.errors import UserError

if TYPE_CHECKING:
    from eval.running.models import Model

_SENTENCE = (".", "!", "?", "\n")


def duo(
    name: str,
    models: Mapping[str, "Model"],
    pair: Pair,
    messages: Sequence[Mapping[str, str]],
    decoding: Decoding,
    stopped: Callable[[], bool],
) -> Iterator[ChatEvent]:
    """The answer of the column `name`, piece by piece; who wrote which, and the score of each draft, before its end."""
    drafter, second = models[pair.drafter], models[pair.second]
    if drafter.tokenizer.get_vocab() != second.tokenizer.get_vocab():
        raise UserError("E_DUO", f"{pair.drafter} and {pair.second} do not have the same tokens.", do="Choose others.")
    began, tokenizer = perf_counter(), drafter.tokenizer
    use_cores(drafter.module)
    text, plain = render(tokenizer, messages, name)
    yield Prompt(name, text)
    prompt = encode(tokenizer, text, plain)
    ends = greedy(drafter.module, tokenizer, 1).eos_token_id
    room = min([decoding.max_new_tokens, *(m.positions - len(prompt) for m in (drafter, second) if m.positions)])
    tokens: list[int] = []
    parts: list[tuple[str, int, float]] = []  # text, 0 the drafter's or 1 the second's, the draft's score
    while len(tokens) < room and not stopped() and not (tokens and tokens[-1] in (ends or [])):
        most = min(pair.step, room - len(tokens))
        piece = _write(drafter, prompt, tokens, most, decoding, stopped)
        score = _score(pair, second, prompt, tokens, piece)
        taken = score >= (pair.threshold if pair.by == "likelihood" else 1)
        if not taken:
            piece = _write(second, prompt, tokens, most, decoding, stopped)
        before = _text(drafter, tokens)
        tokens += piece
        parts.append((_text(drafter, tokens)[len(before) :], int(not taken), score))
        yield Token(name, _text(drafter, tokens).strip())
    lengths = [sum(len(words) for words, who, _ in parts if who == i) for i in (0, 1)]
    shares = [length / max(1, sum(lengths)) for length in lengths]
    pieces = tuple(Part(words, (1.0 - who, float(who)), (score,)) for words, who, score in parts if words)
    where = f"{pair.second} finds it {pair.threshold:g} likely" if pair.by == "likelihood" else "it does not refuse"
    how = f"{pair.drafter} drafts; taken where {where}, else {pair.second} writes"
    named = dict(zip((pair.drafter, pair.second), shares, strict=True))
    yield Routing(name, how, named, "", pieces, f"draft: {pair.by}")
    yield Answered(name, _text(drafter, tokens).strip(), perf_counter() - began, len(tokens))


def _write(
    model: "Model", prompt: list[int], tokens: list[int], most: int, decoding: Decoding, stopped: Callable[[], bool]
) -> list[int]:
    """The next tokens, up to `most` or the end of a sentence."""
    new: list[int] = []
    stream(
        model.module,
        model.tokenizer,
        [*prompt, *tokens],
        max_new_tokens=most,
        temperature=decoding.temperature,
        seed=decoding.seed + len(tokens),
        put=new.append,
        stopped=lambda: stopped() or str(model.tokenizer.decode(new)).endswith(_SENTENCE),
    )
    return new


@torch.inference_mode()
def _score(pair: Pair, second: "Model", prompt: list[int], tokens: list[int], draft: list[int]) -> float:
    """0 to 1: the geometric mean of the second model's probabilities of the draft's tokens; or 0 for a refusal."""
    if pair.by == "no refusal":
        return float(not refuses(_text(second, [*tokens, *draft])))
    ids = torch.tensor([[*prompt, *tokens, *draft]], device=second.module.device)
    logits = second.module(input_ids=ids, use_cache=False).logits[0, -len(draft) - 1 : -1].double()
    return float(logits.log_softmax(-1).gather(1, ids[0, -len(draft) :, None]).mean().exp())


def _text(model: "Model", tokens: list[int]) -> str:
    return str(model.tokenizer.decode(tokens, skip_special_tokens=True)).rstrip("�").lstrip()
