"""Tied and untied embeddings in one family: the base decides, and a tied model is stored with one matrix.

A tied expert below an untied base lends its embedding as its head. An untied expert below a tied base has its head left
out, with a notice: the merge has no place for it, and turning the base into an untied model would add parameters.
"""

from collections.abc import Iterator

from merging.checkpoint import EDGE, Checkpoint
from merging.errors import UserError
from merging.view import View
from merging.vocabulary import embedding_of, head_of

_EMBEDDINGS = {"model.": "model.embed_tokens.weight", "transformer.": "transformer.wte.weight",
               "gpt_neox.": "gpt_neox.embed_in.weight"}  # fmt: skip


def base_ties(base: Checkpoint, notices: list[str]) -> Checkpoint:
    """The base with its head stored once; an error where config.json ties what the file holds as two matrices."""
    embedding, head = embedding_of(base), head_of(base)
    if head is None or not base.config.get("tie_word_embeddings"):
        return base
    if embedding is None:
        own = _embedding_name(base)
        return _renamed(base, {own: head}, {head}) if own else base
    if not _same(base, embedding, head):
        raise UserError("E_TIED", f"config.json ties the head to the embedding, but `{head}` differs from it",
                        where=base.source,
                        do="Write `tie_word_embeddings: false` into its config.json to keep both, or remove the head.",
                        )  # fmt: skip
    notices.append(f"{base.source}: stores its tied head a second time; the merge holds it once.")
    return _renamed(base, {}, {head})


def expert_ties(base: Checkpoint, expert: Checkpoint, where: str, notices: list[str]) -> Checkpoint:
    """The expert with the embedding and head that the base has; `base` comes from `base_ties`."""
    embedding, head = embedding_of(base), head_of(base)
    own_embedding, own_head = embedding_of(expert), head_of(expert)
    if embedding and own_head and own_embedding is None:  # a tied model may store the head alone
        return _renamed(expert, {embedding: own_head}, set() if head else {own_head})
    if head and own_head is None and own_embedding:
        notices.append(f"{where}: its head is tied to its embedding, which is taken for `{head}` too.")
        return _renamed(expert, {head: own_embedding}, set())
    if embedding and own_embedding and own_head and head is None:
        same = _same(expert, own_embedding, own_head)
        differs = "equals its embedding" if same else "differs from its embedding"
        notices.append(f"{where}: its own head, which {differs}, is left out: the base ties its head to the embedding.")
        return _renamed(expert, {}, {own_head})
    return expert


def without_vocabulary(model: Checkpoint) -> Checkpoint:
    """The model without its embedding and head, for a look at everything else."""
    return _renamed(model, {}, {name for name in (embedding_of(model), head_of(model)) if name})


def _renamed(model: Checkpoint, more: dict[str, str], without: set[str]) -> Checkpoint:
    names = {name: name for name in model.tensors if name not in without}
    names = more | names if not set(more) & set(names) else names | more
    tensors = {name: model.tensors[own] for name, own in names.items()}
    return View(model.source, model.folder, model.config, tensors, model.notices, over=model.over, commit=model.commit,
                absent=model.absent, model=model, names=names, rows=None, vocabulary=frozenset())  # fmt: skip


def _embedding_name(model: Checkpoint) -> str | None:
    return next((e for prefix, e in _EMBEDDINGS.items() if any(n.startswith(prefix) for n in model.tensors)), None)


def _same(model: Checkpoint, a: str, b: str) -> bool:
    """Whether two tensors are equal as far as shape, type and 64 KiB from each end tell."""
    if model.tensors[a] != model.tensors[b]:
        return False
    if model.bytes_to_download:
        return True  # as config.json says; asked again once the weights are here
    if a not in model.places or b not in model.places:
        return bool((model.read(a) == model.read(b)).all())
    return all(x == y for x, y in zip(_ends(model, a), _ends(model, b), strict=True))


def _ends(model: Checkpoint, name: str) -> Iterator[bytes]:
    path, entry = model.places[name]
    with path.open("rb") as file:
        for start in (entry.start, max(entry.start, entry.end - EDGE)):
            file.seek(start)
            yield file.read(min(EDGE, entry.end - start))
