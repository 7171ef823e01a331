"""Whether an export still is the merge and still talks: loaded from disk by transformers, as whoever gets it will.

One model is in memory at a time, in the dtype it is stored in. The merge is computed anew, tensor by tensor, into the
loaded model itself: logits before and after are of the same shapes in the same memory, so equal weights give equal
logits. Above SAMPLED parameters an even sample of the tensors stands for all.
"""

import gc
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from eval.running.loading import build, load, load_source, load_tokenizer, write_texts
from eval.running.runtime import encode, greedy, render, stream, use_cores
from eval.scoring.runs import data_folder
from eval.scoring.score import kept_scores
from merging.checkpoint import open_checkpoint
from merging.companions import voice
from merging.device import choose_device, merges_on
from merging.engine import merge, merged_tensors
from merging.errors import UserError
from merging.events import Event, Notice, Reloaded, Testing
from merging.manifest import n_parameters, plan_of, read_manifest
from merging.model_files import TOKENIZER
from merging.plan import Plan
from merging.store import Store
from merging.words import some

SAMPLED = 1_000_000_000  # parameters
QUESTION = [{"role": "user", "content": "What is 7 plus 5?"}]
MAX_NEW_TOKENS = 128
UNITS = 8  # of the stored dtype's rounding, at the largest logit


@dataclass(frozen=True)
class Turn:
    """One greedy answer to QUESTION. `ends`: with one of the model's ending tokens, before there is no more room."""

    template: bool
    ends: bool
    n_tokens: int


def export(plan: Plan, out: Path, device: str = "auto", resume: bool = False) -> Iterator[Event]:
    """Merge into `out`, which appears only once the reload test has passed."""
    place = choose_device(device)
    _check_template(plan)

    def accept(folder: Path) -> Iterator[Event]:
        yield from reload_test(folder, out.name, plan, device)

    kept = Store(data_folder() / "live" / "profile")  # of the live merge
    scores = kept_scores(plan, device)
    yield from merge(plan, out, device=merges_on(place), resume=resume, accept=accept, scores=scores, profile=kept)


def reload(out: Path, device: str = "auto") -> Iterator[Event]:
    """Test a finished export: against its own recipe where the sources are at hand, else that it loads and talks."""
    try:
        digest = read_manifest(out)["digest"]
    except UserError:
        if not out.is_dir():
            raise
        plan = None
        yield Notice("There is no manifest of Mergescope's, so this is not compared with what it was merged from.")
    else:
        plan, at_hand = plan_of(out, digest)
        if at_hand != "same":
            plan = None
            yield Notice(
                "Its sources are not at hand (or changed since), so it is not compared with them. Run this in the "
                "folder from which the recipe's models are found."
            )
    yield from reload_test(out, out.name, plan, device)


def reload_test(folder: Path, title: str, plan: Plan | None, device: str) -> Iterator[Event]:
    """Load, compare, ask. Raises UserError where the folder is not the merge, or cannot be used at all."""
    yield Testing()
    begun = time.monotonic()
    place = choose_device(device)
    stored = open_checkpoint(os.path.abspath(folder), Path())
    module, unused = load(folder, title, "auto")
    module = module.to(place).eval()  # pyright: ignore[reportArgumentType]
    use_cores(module)
    if unused:
        yield Notice(f"transformers has no use for these tensors of {title}: {some(unused)}.")
    if _untied(module):
        yield Notice(
            "config.json makes head and embedding one (tie_word_embeddings), but the weights hold two different ones. "
            "transformers keeps both; other software may drop the head. Set it to false in the base's config.json."
        )
    turn = ask(module, folder, title) if any((folder / name).is_file() for name in TOKENIZER) else None
    before = logits(module)
    difference, bound, compared = None, None, 0
    if plan is not None:
        bound = UNITS * torch.finfo(module.dtype).eps * float(before.abs().max())
        module, compared = _merged_anew(module, plan, title)
        difference = float((logits(module) - before).abs().max())
    del module
    gc.collect()
    if difference is not None and bound is not None and not difference <= bound:
        raise UserError(
            "E_RELOAD",
            f"its logits differ by {difference:.3g} from those of the merge computed anew; {bound:.3g} is rounding.",
            where=title,
            do="Merge again into another folder; if it happens again, report it with the recipe.",
        )
    if plan is not None and turn is not None and not turn.ends:
        yield from _compare_ends(plan, turn, device)
    yield Reloaded(
        n_parameters(stored), n_parameters(plan.base) if plan else None, difference, bound, compared,
        len(stored.tensors), bool(turn and turn.template), turn.ends if turn else None, time.monotonic() - begun,
    )  # fmt: skip


@torch.inference_mode()
def logits(module: PreTrainedModel) -> Tensor:
    """float32 logits (4, up to 16, vocabulary) of token sequences that depend on the size of the vocabulary alone."""
    config = module.config.get_text_config()
    length = min(16, getattr(config, "max_position_embeddings", None) or 16)
    ids = torch.randint(config.vocab_size, (4, length), generator=torch.Generator().manual_seed(0))
    return module(input_ids=ids.to(module.device), use_cache=False).logits.float().cpu()


def ask(module: PreTrainedModel, folder: Path, source: str) -> Turn:
    """One chat turn through the folder's own template. Raises UserError for a template that fails."""
    tokenizer = load_tokenizer(folder, source)
    text, plain = render(tokenizer, QUESTION, source)
    prompt = encode(tokenizer, text, plain)
    if not prompt or max(prompt) >= module.config.get_text_config().vocab_size:
        raise UserError("E_TOKENIZER", "its tokenizer makes no tokens, or some that the model does not know.",
                        where=source, do="Take the tokenizer that belongs to these weights.")  # fmt: skip
    positions = getattr(module.config.get_text_config(), "max_position_embeddings", None)
    room = min(MAX_NEW_TOKENS, (positions or MAX_NEW_TOKENS + len(prompt)) - len(prompt))
    said: list[int] = []
    if room > 0:
        stream(module, tokenizer, prompt, max_new_tokens=room, temperature=0.0, seed=0, put=said.append,
               stopped=lambda: False)  # fmt: skip
    ends = greedy(module, tokenizer, 1).eos_token_id or []
    return Turn(not plain, bool(said) and said[-1] in ends, len(said))


def _merged_anew(module: PreTrainedModel, plan: Plan, title: str) -> tuple[PreTrainedModel, int]:
    """The module with the merge's tensors, and how many of them were computed anew."""
    own = module.state_dict(keep_vars=True)
    names = [tensor.name for tensor in plan.tensors if tensor.name in own]
    filled = {own[name].data_ptr() for name in names}
    if any(tensor.data_ptr() not in filled for tensor in own.values()):  # named or stacked otherwise than in the file
        dtype, place = module.dtype, module.device
        del module, own
        gc.collect()
        state = {name: tensor.to(dtype) for name, tensor in merged_tensors(plan)}
        with TemporaryDirectory() as folder:
            write_texts(plan, Path(folder))
            fresh = build(plan.base.source, Path(folder), state, dtype)
        return fresh.to(place).eval(), len(state)  # pyright: ignore[reportArgumentType]
    step = 1 + plan.estimate.n_parameters // SAMPLED
    chosen = set(names[::step])
    _overwrite(own, merged_tensors(plan, skip={t.name for t in plan.tensors} - chosen), title)
    return module, len(chosen)


@torch.no_grad()
def _overwrite(own: dict[str, Tensor], tensors: Iterator[tuple[str, Tensor]], title: str) -> None:
    """Copy tensors in; refuses those that are not what the loaded model holds in their place."""
    for name, tensor in tensors:
        place = own[name]
        if not torch.equal(place, tensor.to(place)):
            raise UserError("E_RELOAD", f"{name} is not what the merge computed anew gives.", where=title,
                            do="Check the disk, and merge again into another folder.")  # fmt: skip
        place.copy_(tensor)


def _untied(module: PreTrainedModel) -> bool:
    """Whether the config says that head and embedding are one, and the weights hold two."""
    head: Any = module.get_output_embeddings()
    embedding: Any = module.get_input_embeddings()
    tied = getattr(module.config.get_text_config(), "tie_word_embeddings", False)
    return bool(tied and head is not None and head.weight.data_ptr() != embedding.weight.data_ptr())


def _compare_ends(plan: Plan, turn: Turn, device: str) -> Iterator[Notice]:
    """Said only where a source ends its answer and the merge does not; sources are loaded one after another."""
    for source in dict.fromkeys(plan.models):
        if not any((voice(source) / name).is_file() for name in TOKENIZER):
            continue
        try:
            module = load_source(source)
            module = module.to(choose_device(device)).eval()  # pyright: ignore[reportArgumentType]
            ends = ask(module, voice(source), source.source).ends
        except UserError:  # a source that cannot be asked says nothing about the merge
            continue
        del module
        gc.collect()
        if ends:
            yield Notice(
                f"The merge does not end its answer: asked {QUESTION[0]['content']!r} it went on for {turn.n_tokens} "
                f"tokens, while {source.source} ends by itself. Chat will run on; try smaller weights, or "
                "`tokenizer_source:` with the model whose chat format you want."
            )
            return


def _check_template(plan: Plan) -> None:
    """A template that fails is found before anything is merged."""
    with TemporaryDirectory() as folder:
        write_texts(plan, Path(folder))
        if any((Path(folder) / name).is_file() for name in TOKENIZER):
            render(load_tokenizer(Path(folder), "the merge"), QUESTION, "the merge")
