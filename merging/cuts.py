"""Where the largest entries of a tensor end: cuts of magnitudes, found exactly in few passes over its blocks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from merging.blocks import CODES, Blocks, Counts

LEVELS = 6  # magnitudes about a cut that are counted one by one; more are collected


@dataclass(frozen=True)
class Cut:
    """Where the largest entries end: those above `value` belong to them, and those equal to it before index `end`."""

    value: float
    end: int

    def at(self, start: int) -> "Cut":
        """The same cut in a block that begins at flat index `start`; one that keeps nothing is `NOTHING` anywhere."""
        return self if self.value == float("inf") else replace(self, end=self.end - start)

    def keep(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """`x` with 0 where its magnitude is not among the largest; written to `out`, contiguous, where it is given."""
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device) if out is None else out
        if x.dtype != torch.float32:
            return torch.mul(x, self.keep(x.float()) != 0, out=out)
        flat, into = x.reshape(-1), out.view(-1)
        ends = min(max(self.end, 0), len(flat))
        # hardshrink keeps what lies above a threshold, several times faster than a mask
        below = float(np.nextafter(np.float32(self.value), np.float32(-1)))
        for part, level in ((slice(0, ends), below), (slice(ends, None), self.value)):
            if len(flat[part]):
                torch.ops.aten.hardshrink.out(flat[part], level, out=into[part])
        return out


NOTHING = Cut(float("inf"), 0)
Wanted = Callable[[int], int]  # number of entries that are not 0 -> how many of the largest to keep


def find_cuts(sizes: Blocks, wanted: Sequence[Sequence[Wanted]], counts: Sequence[Counts] = ()) -> list[list[Cut]]:
    """For each of a stack's magnitudes (T, n), rounded to float32, the cuts that keep as many as its `wanted` ask.

    Exact: a sample puts each cut among some magnitudes. Of a few, one pass counts the entries above and at each; of
    many it counts those above their codes, the upper 16 bits of a float32, and collects those inside. A sample that was
    wrong costs two more. With `counts` of the same magnitudes it reads only as far as the last entries kept. Entries of
    0 are never cut apart. Among equal magnitudes the lowest flat index comes first: bf16 deltas have about 1200
    distinct ones, so ties are the rule.
    """
    n, sizes = sizes.shape[0], sizes.map(Tensor.float)
    every = {(t, j): want for t, wants in enumerate(wanted) for j, want in enumerate(wants)}
    found = {key: NOTHING for key, want in every.items() if want(n) <= 0}
    found |= {key: Cut(0.0, n) for key, want in every.items() if want(0) >= n}
    found |= _counted(sizes, {key: want for key, want in every.items() if key not in found and counts}, counts)
    near = _guess(sizes, {key: want for key, want in every.items() if key not in found})
    levels = {key: bits for key, bits in near.items() if len(bits) <= LEVELS}
    spans = {key: (bits[0] >> 16, bits[-1] >> 16) for key, bits in near.items() if key not in levels}
    asked = {t for t, j in near if every[t, j](0) != every[t, j](n)}  # for the number of entries that are not 0
    filled: dict[int, int] = {}
    while levels or spans:
        counted, tallies, inside = _scan(sizes, asked, levels, spans)
        filled, asked, missed = filled | counted, set(), {}
        for t, j in (*levels, *spans):
            there = filled.get(t, n)  # entries that are not 0, where the answer hangs on them
            count = every[t, j](there)
            if count <= 0 or count >= there:
                cut = NOTHING if count <= 0 else Cut(0.0, n)
            elif (t, j) in levels:
                cut = _at_level(sizes, t, count, levels[t, j], tallies[t, j])
            else:
                cut = _inside(n, count, *inside[t, j])
            if cut:
                found[t, j] = cut
            else:
                missed[t, j] = count
        levels, spans = {}, _look(sizes, missed)
    return [[found[t, j] for j in range(len(wants))] for t, wants in enumerate(wanted)]


def _place(counts: np.ndarray, count: int) -> tuple[int, int]:
    """The bin of the `count`-th largest entry, and which of its bin it is, from 1 on."""
    at_least = counts[::-1].cumsum()
    back = int(at_least.searchsorted(count))
    return len(counts) - 1 - back, count - (int(at_least[back - 1]) if back else 0)


def _counted(sizes: Blocks, every: dict[tuple[int, int], Wanted], counts: Sequence[Counts]) -> dict:
    """The cuts that follow from known counts: those at a code's least magnitude, which nearly all bf16 deltas have."""
    n, found, sought = sizes.shape[0], {}, {}
    for (t, j), want in every.items():
        known = counts[t]
        zeros = int(known.least[known.codes == 0].sum())
        if known.counts.sum() != n:
            continue
        count = want(n - zeros)
        if count <= 0 or count >= n - zeros:
            found[t, j] = NOTHING if count <= 0 else Cut(0.0, n)
            continue
        at, need = _place(known.counts, count)
        need -= int(known.counts[at] - known.least[at])
        if need > 0:
            sought[t, j] = np.int32(known.codes[at]) << 16, need
    for start, stop in sizes.spans():
        if not sought:
            break
        block = sizes.read(start, stop).cpu().view(torch.int32).numpy()
        for (t, j), (bits, need) in list(sought.items()):
            same = block[t] == bits
            there = int(np.count_nonzero(same))
            if need <= there:
                found[t, j] = Cut(float(bits.view(np.float32)), start + int(np.flatnonzero(same)[need - 1]) + 1)
                del sought[t, j]
            else:
                sought[t, j] = bits, need - there
    return found


def _sample(sizes: Blocks) -> np.ndarray:
    """Bits of some entries of each of the stack: all of a small tensor, else 1/64, in pieces spread over it."""
    n, piece = sizes.shape[0], 2048
    step = piece if n <= 1 << 15 else min(1 << 17, n // 16)
    parts = [sizes.read(at, min(at + piece, n)).cpu().numpy() for at in range(0, n, step)]
    return np.concatenate(parts, axis=1).view(np.int32)


def _guess(sizes: Blocks, every: dict[tuple[int, int], Wanted]) -> dict[tuple[int, int], np.ndarray]:
    """Bits of the magnitudes among which each cut lies, most likely."""
    if not every:
        return {}
    samples, n = _sample(sizes), sizes.shape[0]
    size = samples.shape[1]
    ordered = {t: np.sort(samples[t]) for t in {t for t, _ in every}}  # a partition takes numpy twice as long
    slack = 0.0 if size == n else 4 + 0.01 * size**0.5  # standard deviations: neighbours are alike
    found = {}
    for (t, j), want in every.items():
        zeros = int(ordered[t].searchsorted(1))
        rank = int(want(n - zeros * n // size) * size / n)
        off = int(slack * (rank * (size - rank) / size) ** 0.5)
        low, high = (min(max(at, 0), size - 1) for at in (size - rank - off - 1, size - rank + off))
        found[t, j] = np.unique(ordered[t][low : high + 1])
    return found


def _scan(
    sizes: Blocks,
    asked: set[int],
    levels: dict[tuple[int, int], np.ndarray],
    spans: dict[tuple[int, int], tuple[int, int]],
) -> tuple[dict, dict, dict]:
    """How many entries of those `asked` are not 0; of each block how many lie above and at each level, (blocks, 2,
    levels); how many lie above each span, and places and bits of those inside.
    """
    filled, above = dict.fromkeys(asked, 0), dict.fromkeys(spans, 0)
    tallies: dict = {key: [] for key in levels}
    inside: dict = {key: ([], []) for key in spans}
    for start, stop in sizes.spans():
        block = sizes.read(start, stop).cpu()
        block, codes = block.numpy(), block.view(torch.int32).numpy()
        for t in asked:
            filled[t] += int(np.count_nonzero(block[t] != 0))
        for (t, j), bits in levels.items():
            sides = (np.greater, np.equal)
            tallies[t, j].append([[np.count_nonzero(is_(block[t], x)) for x in bits.view(np.float32)] for is_ in sides])
        for (t, j), (low, high) in spans.items():
            below = codes[t] <= (high << 16 | 0xFFFF)
            above[t, j] += len(below) - int(np.count_nonzero(below))
            places = np.flatnonzero(below & (codes[t] >= low << 16))
            inside[t, j][0].append(places + start)
            inside[t, j][1].append(codes[t][places])
    found = {key: (above[key], *map(np.concatenate, pair)) for key, pair in inside.items()}
    return filled, {key: np.array(tally) for key, tally in tallies.items()}, found


def _at_level(sizes: Blocks, t: int, count: int, bits: np.ndarray, tally: np.ndarray) -> Cut | None:
    """The cut after the `count` largest where it lies at one of these magnitudes."""
    above, at = tally.sum(0)
    here = np.flatnonzero((above < count) & (count <= above + at))
    if not len(here):
        return None
    value = float(bits.view(np.float32)[here[0]])
    end = _end(sizes, t, value, int(count - above[here[0]]), tally[:, 1, here[0]]) if value else sizes.shape[0]
    return Cut(value, end)


def _end(sizes: Blocks, t: int, value: float, need: int, at: np.ndarray) -> int:
    """Where the `need`-th entry of a value ends, of which each block has as many as `at` says."""
    until = at.cumsum()
    number = int(until.searchsorted(need))
    start, stop = list(sizes.spans())[number]
    places = np.flatnonzero(sizes.read(start, stop)[t].cpu().numpy() == value)
    return start + int(places[need - 1 - int(until[number] - at[number])]) + 1


def _look(sizes: Blocks, missed: dict[tuple[int, int], int]) -> dict[tuple[int, int], tuple[int, int]]:
    """The code of the entry after which each cut lies, from a count of all codes."""
    totals = {t: np.zeros(CODES, np.int64) for t, _ in missed}
    for start, stop in sizes.spans() if missed else ():
        block = sizes.read(start, stop).cpu().view(torch.int32)
        for t in totals:
            totals[t] += torch.bincount(block[t] >> 16, minlength=CODES).numpy()
    codes = {(t, j): _place(totals[t], count)[0] for (t, j), count in missed.items()}
    return {key: (code, code) for key, code in codes.items()}


def _inside(n: int, count: int, above: int, places: np.ndarray, bits: np.ndarray) -> Cut | None:
    """The cut after the `count` largest of n where it lies among these entries, above which lie so many."""
    if not above < count <= above + len(bits):
        return None
    code, rank = _place(np.bincount(bits >> 16), count - above)
    least, last = _place(np.bincount(bits[bits >> 16 == code] & 0xFFFF), rank)
    value = np.int32(code << 16 | least)
    end = int(places[np.flatnonzero(bits == value)[last - 1]]) + 1 if value else n
    return Cut(float(value.view(np.float32)), end)
