"""The folder that a calibration grows in. What is measured is written as it comes, so a stopped run goes on."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from eval.running.layers import STRIP, Grams, Layers
from merging.calibration import ABOUT, BASE, ENDS, GAINS, GRADIENTS, HEAD, SQUARES, About, Stream, file_name
from merging.checkpoint import Checkpoint
from merging.partial import refuse_existing, sha256_of

FORM = 4  # of what a measurement holds: one of another form is not gone on with
_PRODUCTS = "products of "
_RUN = "run"


def begin(folder: Path, run: object) -> None:
    """Makes the folder of a run, or keeps it where an earlier run of the same `run` and form has left it; any other
    goes.
    """
    told = hashlib.sha256(json.dumps([FORM, run]).encode()).hexdigest()
    mark = folder / _RUN
    if folder.exists() and (not mark.is_file() or mark.read_text() != told):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(told)


@dataclass(frozen=True, eq=False)
class Kept:
    """What has been measured so far. stream, tokens, embedding: as in `About`; names: the tensors of the model."""

    folder: Path
    base: Checkpoint
    experts: Sequence[Checkpoint]
    stream: Stream
    tokens: tuple[int, ...]
    layers: Layers
    embedding: str
    names: Sequence[str]
    device: torch.device

    @property
    def parts(self) -> list[str]:
        return [*map(str, range(len(self.layers))), ENDS, *([HEAD] if self.has_all(HEAD) else [])]

    def has(self, t: int, part: str) -> bool:
        return self._path(t, part).is_file()

    def has_all(self, part: str) -> bool:
        return all(self.has(t, part) for t in range(len(self.experts)))

    def keep(self, t: int, part: str, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
        """Appears whole or not at all."""
        path = self._path(t, part)
        save_file(dict(tensors), path.with_suffix(".part"), metadata)
        os.replace(path.with_suffix(".part"), path)

    @torch.inference_mode()
    def keep_grams(self, t: int, part: str, grams: Grams, more: Mapping[str, Tensor] | None = None) -> None:
        """Keeps the Gram matrices as means over the tokens, and with them the products `<D_s C, D_u>` of every matrix's
        deltas. The sums in `grams` are used up.
        """
        means = {name: total.div_(grams.tokens) for name, total in grams.sums.items()}
        squares = {SQUARES + name: total / grams.tokens for name, total in grams.squares.items()}
        tensors = {name: one.cpu() for name, one in (means | squares).items()} | dict(more or {})
        # A tied head stands under the name of the embedding, which is the tensor that the files hold.
        same = {name if name in self.base.tensors else self.embedding: kept for name, kept in grams.same_as.items()}
        for name in (name for name in same if name != self.embedding):
            tensors[_PRODUCTS + name] = self._products(name, means[same[name]])
        self.keep(t, part, tensors, {"matrices": json.dumps(same, sort_keys=True)})

    def about(self, parts: Iterable[str]) -> About:
        """What the calibration says of itself, as far as these parts go; they must be written for all experts."""
        matrices: dict[str, tuple[str, str]] = {}
        norms: dict[str, str] = {}
        products: dict[str, list[list[list[float]]]] = {}
        for part in parts:
            for t in range(len(self.experts)):
                with safe_open(self._path(t, part), "pt") as file:
                    same = json.loads(file.metadata()["matrices"])
                    matrices |= {name: (part, kept) for name, kept in same.items()}
                    keys = file.keys()
                    norms |= {key.removeprefix(SQUARES): part for key in keys if key.startswith(SQUARES)}
                    # In their order: the calibration's digest, which names merge and scores, hashes this file.
                    for name in (name for name in same if name != self.embedding):
                        products.setdefault(name, []).append(file.get_tensor(_PRODUCTS + name).tolist())
        return About.model_validate(
            {
                "base": self.base.fingerprint,
                "experts": [expert.fingerprint for expert in self.experts],
                "stream": self.stream,
                "tokens": self.tokens,
                "matrices": matrices,
                "embedding": self.embedding,
                "norms": norms,
                "base_columns": self.has_all(BASE),
                "transposed": sorted(name for name in matrices if self.layers.is_transposed(name)),
                "products": products,
                "gradients": self.names if self.stream == "gradients" else [],
                "gains": self.names if self.has_all(GAINS) else [],
            }
        )

    def finish(self, out: Path) -> int:
        """Gives the folder its name; returns its bytes. Raises UserError where something of that name is there."""
        parts = self.parts
        more = [part for part in (BASE, GRADIENTS, GAINS) if self.has_all(part)]
        files = [self._path(t, part) for t in range(len(self.experts)) for part in (*parts, *more)]
        hashes = {path.name: sha256_of(path) for path in files}
        self.write_about(self.about(parts).model_copy(update={"files": hashes}))
        refuse_existing(out)
        (self.folder / _RUN).unlink()
        self.folder.rename(out)
        return sum((out / name).stat().st_size for name in hashes)

    def write_about(self, about: About) -> None:
        (self.folder / ABOUT).write_text(about.model_dump_json())

    def _path(self, t: int, part: str) -> Path:
        return self.folder / file_name(t, part)

    def _products(self, name: str, gram: Tensor) -> Tensor:
        base = self.base.read(name).to(self.device).float()
        deltas = torch.stack([expert.read(name).to(self.device).float() - base for expert in self.experts])
        return products(deltas.mT.contiguous() if self.layers.is_transposed(name) else deltas, gram).cpu()


def products(deltas: Tensor, gram: Tensor) -> Tensor:
    """`<D_s C, D_u>` (T, T) in float64, of deltas (T, m, n) under a symmetric C (n, n).

    With `C = U + U^T`, U its upper triangle and half its diagonal, that is `<D_s U, D_u> + <D_u U, D_s>`, which costs
    half.
    """
    upper = gram.triu()
    upper.diagonal().mul_(0.5)
    rows = deltas.reshape(-1, len(gram))
    half = torch.zeros(len(deltas), len(deltas), dtype=torch.float64, device=deltas.device)
    for at in range(0, len(gram), STRIP):
        own = slice(at, at + STRIP)
        put_out = (rows[:, : own.stop] @ upper[: own.stop, own]).view(*deltas.shape[:2], -1)
        half += torch.einsum("smn,umn->su", put_out.double(), deltas[..., own].double())
    return half + half.T
