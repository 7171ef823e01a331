"""Whether an expert fits its base, told from headers alone."""

from collections.abc import Iterator

from merging.checkpoint import FLOATS, Checkpoint
from merging.errors import UserError
from merging.layers import layer_of
from merging.words import count, first_names, shown


def mismatches(base: Checkpoint, expert: Checkpoint, source: str, notices: list[str]) -> Iterator[UserError]:
    where = source if len(source) < 80 else f"…{source[-70:]}"
    kinds = [c.config.get("model_type") for c in (base, expert)]
    if kinds[0] != kinds[1] and all(kinds):
        yield UserError(
            "E_ARCHITECTURE", f"is a {shown(kinds[1])} model, the base a {shown(kinds[0])} model", where=where
        )
    missing = [name for name in base.tensors if name not in expert.tensors]
    if missing:
        yield UserError(
            "E_TENSOR_MISSING", f"lacks {count(missing, 'tensor')} of the base: {first_names(missing)}", where=where
        )
    differing = [n for n, info in base.tensors.items() if n in expert.tensors and expert.tensors[n].shape != info.shape]
    if differing:
        name = differing[0]
        theirs, ours = (" × ".join(map(str, c.tensors[name].shape)) or "a scalar" for c in (expert, base))
        more = f" ({len(differing) - 1} more differ)" if len(differing) > 1 else ""
        yield UserError(
            "E_SHAPE_MISMATCH",
            f"`{name}` is {theirs}, in the base {ours}{more}",
            where=where,
            do="Use experts that were trained from this base.",
        )
    odd = [
        n
        for n, info in base.tensors.items()
        if info.dtype in FLOATS and n in expert.tensors and expert.tensors[n].dtype not in FLOATS
    ]
    if odd:
        yield UserError(
            "E_DTYPE", f"`{odd[0]}` is stored as {expert.tensors[odd[0]].dtype}, not as numbers to merge", where=where
        )
    extra = [name for name in expert.tensors if name not in base.tensors]
    # buffers and heads may be left out; a layer's own weights may not
    lost = [name for name in extra if layer_of(name) is not None and name.endswith(".weight")]
    if lost:
        yield UserError(
            "E_TENSOR_MISSING",
            f"lacks {count(lost, 'tensor')} that {where} holds: {first_names(lost)}",
            where=base.source,
        )
    elif extra:
        notices.append(f"{where}: {count(extra, 'tensor')} that the base lacks left out: {first_names(extra)}.")
