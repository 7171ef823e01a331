"""What each tensor of a LoRA adapter's file does to which tensor of its base, told from names and shapes alone."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from merging.adapter_config import AdapterConfig
from merging.checkpoint import FLOATS, Checkpoint
from merging.config_checks import EMBEDDING, HEAD
from merging.errors import UserError
from merging.words import some

# What a tensor of the file is, by the end of its name; the adapter's own name may stand in it.
PARTS = {
    "a": re.compile(r"\.lora_A(?:\.[^.]+)?\.weight$"),
    "b": re.compile(r"\.lora_B(?:\.[^.]+)?\.weight$"),
    "shift": re.compile(r"\.lora_B(?:\.[^.]+)?\.bias$"),
    "embedding a": re.compile(r"\.lora_embedding_A(?:\.[^.]+)?$"),
    "embedding b": re.compile(r"\.lora_embedding_B(?:\.[^.]+)?$"),
    "magnitude": re.compile(r"\.lora_magnitude_vector(?:\.[^.]+)??(?:\.weight)?$"),
    "tokens": re.compile(r"\.token_adapter\.trainable_tokens_delta(?:\.[^.]+)?$"),
}
PREFIX, WRAPPER = "base_model.model.", re.compile(r"\.(?:base_layer|modules_to_save\.[^.]+)(?=\.)")
CONV1D = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")  # their linear layers store inputs first
OWN_BASE = "Write `base+adapter` with the model that this adapter was trained from."
PEFT = "Merge it into its base with PEFT (merge_and_unload) and give that folder."
Fault = tuple[str, str, str]  # code, what, what to do


@dataclass(frozen=True)
class Change:
    """What an adapter does to one tensor, in this order; the texts are names of tensors in its file."""

    module: str  # what the adapter calls the layer
    whole: str | None = None  # takes the place of the base's tensor
    twin: str | None = None  # the head, where it is tied to this embedding and trained with it
    b: str | None = None
    a: str | None = None
    scale: float = 1.0
    swap: bool = False  # stored with inputs first: embeddings, and GPT-2's layers
    shift: str | None = None  # added, times scale
    magnitude: str | None = None
    tokens: str | None = None  # these rows are replaced
    rows: tuple[int, ...] = ()


def find_changes(
    file: Checkpoint, config: AdapterConfig, over: Checkpoint, problems: list[UserError]
) -> dict[str, Change]:
    """Changes by the base's tensor; what is wrong is added to `problems`, the layers of each fault together."""
    found: dict[str, Change] = {}
    faults: dict[Fault, list[str]] = {}
    tied, firsts = _is_tied(over), dict.fromkeys(name.partition(".")[0] for name in over.tensors)
    for name, info in file.tensors.items():
        module, tensor, part = _parsed(name)
        target = _target(tensor, over, firsts)
        if info.dtype not in FLOATS:
            faults.setdefault(("E_DTYPE", "these are not stored as numbers to merge", ""), []).append(name)
        elif tied and HEAD.fullmatch(tensor):
            found[tensor] = replace(found.get(tensor, Change(module)), **{part.removeprefix("embedding "): name})
        elif target is None or over.tensors[target].dtype not in FLOATS:
            faults.setdefault(("E_ADAPTER_BASE", "these fit no tensor of its base", OWN_BASE), []).append(name)
        else:
            change, key = found.get(target, Change(module)), part.removeprefix("embedding ")
            if getattr(change, key) is not None:
                several = ("E_ADAPTER", "these are there twice, as of several adapters", "Save one adapter a folder.")
                faults.setdefault(several, []).append(name)
            found[target] = replace(change, **{key: name}, swap=change.swap or part.startswith("embedding"))
    if not file.tensors:
        problems.append(UserError("E_ADAPTER", "the file holds no tensors.", where=file.source))
    if tied:
        found, apart = _tied(found, config, file)
        if apart:
            what = "these are trained apart, but the base ties its head to its embedding"
            faults[("E_ADAPTER", what, "Use a base whose head is a tensor of its own.")] = apart
    for target, change in found.items():
        found[target] = change = _completed(change, target, config, file, over)
        for fault in _faults(change, config, file, over.tensors[target].shape):
            faults.setdefault(fault, []).append(change.module)
    problems += [UserError(code, f"{what}: {some([n.removeprefix(PREFIX) for n in names])}.", where=file.source, do=do)
                 for (code, what, do), names in faults.items()]  # fmt: skip
    return found


def _parsed(name: str) -> tuple[str, str, str]:
    """The layer's name, the name of its tensor, and what this one is to it."""
    bare = name.removeprefix(PREFIX)
    for part, end in PARTS.items():
        if match := end.search(bare):
            module = bare[: match.start()]
            return module, f"{module}.{'bias' if part == 'shift' else 'weight'}", part
    tensor = WRAPPER.sub("", bare)
    return tensor.rpartition(".")[0], tensor, "whole"


def _target(tensor: str, over: Checkpoint, firsts: Collection[str]) -> str | None:
    """The base's name of it: some files lack the first part of the name that the model in memory has, or have one."""
    candidates = (tensor, tensor.partition(".")[2], *(f"{first}.{tensor}" for first in firsts))
    return next((name for name in candidates if name in over.tensors), None)


def _completed(change: Change, target: str, config: AdapterConfig, file: Checkpoint, over: Checkpoint) -> Change:
    if change.tokens:
        rows = config.tokens
        if isinstance(rows, dict):
            rows = next((r for key, r in rows.items() if f".{change.module}".endswith(f".{key}")), ())
        change = replace(change, rows=rows)
    if change.shift or change.b:
        change = replace(change, scale=config.scale(change.module)[1])
    if change.a and change.b and not change.swap:
        out_in = (file.tensors[change.b].shape[0], file.tensors[change.a].shape[-1])
        shape = over.tensors[target].shape
        square = out_in[0] == out_in[1]
        swap = over.config.get("model_type") in CONV1D if square else out_in != shape and out_in[::-1] == shape
        change = replace(change, swap=swap)
    return change


def _faults(change: Change, config: AdapterConfig, file: Checkpoint, shape: tuple[int, ...]) -> Iterator[Fault]:
    def of(name: str | None) -> tuple[int, ...]:
        return file.tensors[name].shape if name else ()

    if (change.a is None) != (change.b is None) or (change.magnitude and not change.b):
        yield "E_ADAPTER", "of these layers only a part of A, B and magnitude is there", "Download the adapter again."
        return
    if change.whole and of(change.whole) != shape:
        what = f"saved whole as {_sides(of(change.whole))}, in the base {_sides(shape)}"
        yield "E_SHAPE_MISMATCH", what, "Use a base with this many rows, resized as it was for the training."
    if change.twin and of(change.twin) != shape:
        yield "E_SHAPE_MISMATCH", f"its head is {_sides(of(change.twin))}, its embedding {_sides(shape)}", OWN_BASE
    if change.shift and of(change.shift) != shape:
        yield "E_ADAPTER_BASE", f"its bias is {_sides(of(change.shift))}, in the base {_sides(shape)}", OWN_BASE
    if change.b:
        yield from _low_rank_faults(of(change.b), of(change.a), change, config, shape)
        if config.dora != bool(change.magnitude):
            there = "there" if change.magnitude else "missing"
            yield "E_ADAPTER", f"use_dora is {config.dora}, but lora_magnitude_vector is {there}", ""
        if change.magnitude and of(change.magnitude) != (shape[1 if change.swap else 0],):
            yield "E_ADAPTER_BASE", f"its magnitude is {_sides(of(change.magnitude))}, of {_sides(shape)}", OWN_BASE
    if change.tokens:
        rows = change.rows
        if change.b or change.whole:
            yield "E_ADAPTER", "single tokens are trained beside a change of all of them", PEFT
        if of(change.tokens) != (len(rows), *shape[1:]) or len(set(rows)) < len(rows):
            yield "E_ADAPTER", f"{_sides(of(change.tokens))} of {len(rows)} tokens (trainable_token_indices)", ""
        elif not all(0 <= row < shape[0] for row in rows):
            yield "E_ADAPTER_BASE", f"trainable_token_indices goes beyond the {shape[0]} tokens of the base", OWN_BASE


def _low_rank_faults(
    b: tuple[int, ...], a: tuple[int, ...], change: Change, config: AdapterConfig, shape: tuple[int, ...]
) -> Iterator[Fault]:
    rank = config.scale(change.module)[0]
    if len(b) != 2 or len(a) != 2 or len(shape) != 2:
        yield "E_ADAPTER", "only matrices are merged, and these are not", PEFT
        return
    if (a[0], b[1]) != (rank, rank):
        what = f"A is {_sides(a)} and B {_sides(b)}, but the config gives rank {rank} (r, rank_pattern)"
        yield "E_ADAPTER", what, "Use the adapter_config.json that belongs to these weights."
    if (b[0], a[1]) != (shape[::-1] if change.swap else shape):
        yield "E_ADAPTER_BASE", f"B A is {b[0]} × {a[1]}, in the base {_sides(shape)}", OWN_BASE


def _is_tied(over: Checkpoint) -> bool:
    says, has_head = over.config.get("tie_word_embeddings"), any(map(HEAD.fullmatch, over.tensors))
    return says is True or (says is None and not has_head)


def _tied(found: Mapping[str, Change], config: AdapterConfig, file: Checkpoint) -> tuple[dict[str, Change], list[str]]:
    """Changes of a base with one tensor for embedding and head, and what trains the two apart, by name in the file.

    PEFT's merge gives the change of one of them to both: other logits than those that were trained.
    """
    heads = {name: change for name, change in found.items() if HEAD.fullmatch(name)}
    kept = {name: change for name, change in found.items() if name not in heads}
    words = [name for name, c in kept.items() if EMBEDDING.fullmatch(name) and (c.whole or c.b)]
    if config.tied and len(words) == 1 and len(heads) == 1:
        (head,) = heads.values()
        if head == Change(head.module, whole=head.whole) and not kept[words[0]].b:
            kept[words[0]] = replace(kept[words[0]], twin=head.whole)
            return kept, []
    apart = [*heads.values(), *(kept.pop(name) for name in words)]
    return kept, [name for name in file.tensors if any(name in (c.whole, c.a, c.b, c.tokens) for c in apart)]


def _sides(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "a scalar"
