"""Models before they are in memory: which there are, and which of them a device has room for together."""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from eval.running.memory import n_bytes
from eval.running.mixed import Mixed
from merging.adapter import AdapterCheckpoint
from merging.checkpoint import Checkpoint
from merging.folded import Folded
from merging.plan import Plan
from merging.view import stored


@dataclass(frozen=True)
class Merged:
    """A merge that is on no disk: what an export would hold, with weights that are computed when needed.

    folded: what it can answer with before that. written: whether `state` has them already.
    """

    plan: Plan
    state: Callable[[], Mapping[str, Tensor]]
    folded: Folded | None = None
    written: bool = True

    @property
    def key(self) -> str:
        """Merges with the same key differ in their weights only."""
        recipe = self.plan.recipe
        words = (self.plan.tokenizer.source.fingerprint, self.plan.tokenizer.added, recipe.chat_template)
        return f"merge of {self.plan.base.fingerprint} {words}{' by folds' if self.folded else ''}"


Source = Checkpoint | Merged | Mixed


@dataclass(frozen=True)
class Room:
    """Bytes that models may take on a device, where an entry of a tensor takes `itemsize`. Asks headers alone.

    swaps: whether a model larger than that is spread over device and host memory (`swapping.py`).
    """

    n_bytes: int
    itemsize: int
    swaps: bool = False

    def fits(self, source: Source) -> bool:
        """Whether it lies on the device whole."""
        return not self.swaps or self.need([source]) <= self.n_bytes

    def groups(self, sources: Mapping[str, Source]) -> list[dict[str, Source]]:
        """Sources in order, cut into groups that fit together; one group where all fit.

        A merge is by its written weights, or by its folds where these are earlier there or need fewer groups.
        """
        merges = {name: source for name, source in sources.items() if isinstance(source, Merged) and source.folded}
        written = {**sources, **{name: replace(merge, folded=None) for name, merge in merges.items()}}
        if any(self.need([merge]) > self.n_bytes for merge in merges.values()):
            return self._cut(written)
        ready = all(merge.written for merge in merges.values())
        return min(map(self._cut, (written, sources) if ready else (sources, written)), key=len)

    def need(self, sources: Iterable[Source]) -> int:
        """Bytes of these models together: what they share counts once."""
        sources = list(sources)
        bases = whole_models(sources)
        others = (one for one in sources if not isinstance(one, Checkpoint) or one.fingerprint not in bases)
        return sum(n_bytes(_shapes(base), self.itemsize) for base in bases.values()) + sum(
            self.own(one, bases) for one in others
        )

    def own(self, source: Source, bases: Container[str]) -> int:
        """What it takes beside those of `bases`, which are fingerprints."""
        shapes, shared, ranks = _shapes(source), set[str](), {}
        if isinstance(source, Merged):
            if source.folded:
                ranks = {name: len(fold.x) for name, fold in source.folded.folds.items()}
        elif isinstance(source, Mixed):
            ranks, shared = source.ranks, shapes.keys() - source.ranks
        elif isinstance(source, AdapterCheckpoint) and source.over.fingerprint in bases:
            shared = source.tensors.keys() - source.changes
        return n_bytes(shapes, self.itemsize, shared=shared, ranks=ranks)

    def _cut(self, sources: Mapping[str, Source]) -> list[dict[str, Source]]:
        groups: list[dict[str, Source]] = []
        for name, source in sources.items():
            if not groups or self.need([*groups[-1].values(), source]) > self.n_bytes:
                groups.append({})
            groups[-1][name] = source
        return groups


def whole_models(sources: Iterable[Source]) -> dict[str, Checkpoint]:
    """Those among them and below them, by fingerprint: what others share tensors with."""
    sources = list(sources)
    found = {one.fingerprint: one for one in sources if isinstance(one, Checkpoint) and is_whole(one)}
    folded = [stored(one.plan.base) for one in sources if isinstance(one, Merged) and one.folded]
    mixed = [one.base for one in sources if isinstance(one, Mixed)]
    return found | {base.fingerprint: base for base in (*folded, *mixed)}


def is_whole(source: Source) -> bool:
    """Whether it is no merge and no adapter."""
    return isinstance(source, Checkpoint) and source.over is None


def _shapes(source: Source) -> dict[str, tuple[int, ...]]:
    if isinstance(source, Merged):
        return {tensor.name: tensor.shape for tensor in source.plan.tensors}
    tensors = source.base.tensors if isinstance(source, Mixed) else source.tensors
    return {name: info.shape for name, info in tensors.items()}
