"""The tokens of a model and their ids, read from its tokenizer files; transformers is not needed for that."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from merging.checkpoint import Checkpoint
from merging.config_checks import EMBEDDING, HEAD
from merging.errors import UserError
from merging.layers import layer_of
from merging.model_files import TOKENIZER_LIMIT
from merging.sources import regular_file
from merging.strict_json import read_json
from merging.words import reason, shown

MAX_TOKENS = 1_000_000
MAX_ID = 1 << 24


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Token -> id. `added` holds tokenizer.json's own entries of the tokens that stand outside its model."""

    ids: Mapping[str, int]
    added: Mapping[str, dict[str, Any]]
    next_id: int  # which id an appended token gets from the tokenizers library

    def held(self, rows: int) -> dict[str, int]:
        """Without the tokens whose id lies beyond the embedding: they have no row."""
        return {token: i for token, i in self.ids.items() if i < rows}


def embedding_of(model: Checkpoint) -> str | None:
    """Name of the input embedding (tokens x width), or None where no tensor looks like one."""
    return next((n for n, info in model.tensors.items() if len(info.shape) == 2 and EMBEDDING.fullmatch(n)), None)


def head_of(model: Checkpoint) -> str | None:
    """Name of the output head that the file stores, or None."""
    names = (n for n, info in model.tensors.items() if len(info.shape) == 2 and layer_of(n) is None)
    return next((n for n in names if HEAD.fullmatch(n)), None)


def row_count(model: Checkpoint) -> int | None:
    name = embedding_of(model) or head_of(model)
    return model.tensors[name].shape[0] if name else None


def read_vocabulary(model: Checkpoint) -> Vocabulary | None:
    """From tokenizer.json, or vocab.json with added_tokens.json; None where the folder has neither.

    An adapter without tokenizer files speaks as the model below it.
    """
    for name in ("tokenizer.json", "vocab.json"):
        try:
            path = regular_file(model.folder, name)
            if path is not None:
                extra = regular_file(model.folder, "added_tokens.json") if name == "vocab.json" else None
                facts = path.stat()
                return _read(path, name, extra, facts.st_mtime_ns, facts.st_size)
        except (ValueError, OSError) as error:
            raise UserError("E_TOKENIZER", f"{reason(error)}.", where=f"{model.source}/{name}",
                            do="Use the tokenizer files that belong to the model.") from error  # fmt: skip
    return read_vocabulary(model.over) if model.over is not None else None


# A plan is made anew for each move of a slider, and 10 MB of JSON take half a second.
@lru_cache(maxsize=8)
def _read(path: Path, name: str, extra: Path | None, changed: int, size: int) -> Vocabulary:
    document = read_json(path, TOKENIZER_LIMIT)
    if name == "vocab.json":
        tokens = [*_pairs(document), *(_pairs(read_json(extra, TOKENIZER_LIMIT)) if extra else ())]
        added: dict[str, dict[str, Any]] = {}
        n_model = len(tokens)
    else:
        words = document.get("model") if isinstance(document, dict) else None
        own = words.get("vocab") if isinstance(words, dict) else None
        tokens = list(_pairs(own))
        n_model = len(tokens)
        entries = document.get("added_tokens") or []
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise ValueError("its added_tokens are not a list of mappings")
        added = {str(entry.get("content")): entry for entry in entries}
        tokens += [(entry.get("content"), entry.get("id")) for entry in entries]
    if len(tokens) > MAX_TOKENS:
        raise ValueError(f"it holds {len(tokens):,} tokens, more than the {MAX_TOKENS:,} that are read")
    for token, i in tokens:
        if not isinstance(token, str) or type(i) is not int or not 0 <= i < MAX_ID:
            raise ValueError(f"the id of token {shown(token)} is {shown(i)}; it must be a whole number from 0")
    ids = dict(tokens)
    owners: dict[int, str] = {}
    for token, i in ids.items():
        if owners.setdefault(i, token) != token:
            raise ValueError(f"the tokens {shown(owners[i])} and {shown(token)} have the same id {i}")
    next_id = max([n_model, *(entry["id"] + 1 for entry in added.values())])
    return Vocabulary(ids, added, next_id)


def _pairs(vocab: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(vocab, dict):
        yield from vocab.items()
    elif isinstance(vocab, list) and all(isinstance(item, list) and item for item in vocab):
        yield from ((item[0], i) for i, item in enumerate(vocab))  # Unigram: pieces with scores
    else:
        raise ValueError("it holds no vocabulary")
