"""Mergescope against mergekit, FusionBench and the floors of this machine, in one run on one core.

    make bench [SIZE=small] [PEERS=PYTHON]

Makes a synthetic family, gives the peers an environment of their own (or takes PEERS, a Python that has them), and
writes benchmarks/results.md: ratios of CPU seconds, process start excluded, and peak anonymous memory.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.family import EXPERTS, SIZES, make_family
from benchmarks.measured import Cost, run
from benchmarks.rows import PROFILED, ROWS, SPECTRAL, Row

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results.md")
PEERS = ("torch==2.13.0", "mergekit==0.1.5", "hydra-core", "bidict", "joblib", "lightning", "matplotlib", "h5py",
         "tensorboard", "pytest", "scipy")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--peers", help="a Python with mergekit 0.1.5 and fusion_bench 0.2.33")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where family and merges lie")
    parser.add_argument("--repeat", type=int, default=3, help="times an element-wise merge is run; the least counts")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="METHOD",
        help="these element-wise rows, `profile` or `spectral`, printed and not kept",
    )
    args = parser.parse_args()
    home = make_family(args.size, args.folder)
    bench = Bench(args.folder, home, args.peers or _environment(args.folder / "peers"), args.repeat)
    if args.only:
        wanted = [row for row in ROWS if row.method in args.only]
        print("\n".join(bench.element_wise(wanted) if wanted else ()))
        print("\n".join(bench.profile() if "profile" in args.only else ()))
        print("\n".join(bench.spectral() if "spectral" in args.only else ()))
        return
    layer = Bench(args.folder, make_family("layer8b", args.folder), bench.peers, args.repeat)
    lines = [
        *bench.element_wise(ROWS),
        "",
        *bench.spectral(),
        "",
        *bench.profile(),
        "",
        *bench.live(),
        "",
        *layer.live(),
        "",
        *bench.chat(),
    ]
    text = "\n".join([*_head(args.size), *lines, ""])
    print(text)
    RESULTS.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Bench:
    folder: Path
    home: Path
    peers: str
    repeat: int

    def element_wise(self, wanted: Sequence[Row]) -> list[str]:
        rows, kept = [], str(self.folder / "profile")
        shutil.rmtree(kept, ignore_errors=True)
        learned = 0.0
        for row in wanted:
            names = ["base", *EXPERTS[: row.experts]] if row.base else EXPERTS[: row.experts]
            models = [str(self.home / name) for name in names]
            floor = self._least("floor", str(self.folder / "floor"), *models)
            files = self._recipe(row)
            ours, theirs = self._least("ours", *files), self._least("by_mergekit", *files, python=self.peers)
            most, least = row.aim or (None, None)
            loop = self._loop(row.method, models, floor) if row.aim else ""
            cells = [_cell(ours.cpu / floor.cpu, most), loop, "", ""]
            if row.profile:
                learned = learned or self._run(sys.executable, "profile", str(self.home), "exact", kept).cpu / floor.cpu
                known = self._least("ours", *files, kept).cpu / floor.cpu
                cells[2:] = [_cell(known, PROFILED), self._loop(f"known {row.method}", models, floor)]
            rows.append(f"| `{row.method}` | {' | '.join(cells)} | {theirs.cpu / floor.cpu:.1f} | "
                        f"**{_cell(theirs.cpu / ours.cpu, least, up=True)}** | "
                        f"{ours.anonymous >> 20} | {theirs.anonymous >> 20} | "
                        f"{ours.said['first']:.1f} | {theirs.start:.1f} |")  # fmt: skip
            print(rows[-1], file=sys.stderr)
        said = [
            "With a profile: with what the live merge keeps of the layers' matrices, which costs "
            f"{learned:.1f} floors once."
        ]
        return [
            "Element-wise. In columns `ours`, `loop` and `mergekit`: CPU as a multiple of the floor, which is",
            "reading the models and writing one, through mapped files as the peers read (where page faults are dear,",
            "reading without them costs less). mergekit / ours: how many times faster ours is. MB: peak anonymous",
            "memory above imports. ours first, mergekit start: CPU seconds to our first tensor, and to the end of",
            "mergekit's imports. In brackets stands what we aim at. Loop: the same passes over the entries in one",
            "bare loop without a plan, its thresholds and factors given, with the sha256 of what is written, which",
            "the manifest needs and mergekit has none of (`runners/bare.py`): an aim below it is out of torch's",
            "reach on this machine. What ours does beside it: cuts are exact, and of the many magnitudes that a",
            "sample leaves about a cut all are counted, where the loop counts one; a plan, a manifest, and a file",
            "that is on the disk at the end.",
            *(said if learned else ()),
            "",
            "| method | ours | loop | with a profile | its loop | mergekit | mergekit / ours | ours MB | "
            "mergekit MB | ours first | mergekit start |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
            *rows,
        ]

    def spectral(self) -> list[str]:
        peer_out = self.folder / "fusionbench.safetensors"
        peer = self._run(self.peers, "by_fusionbench", str(self.home), str(peer_out))
        rows = []
        for title, row in SPECTRAL:
            recipe, out = self._recipe(row)
            ours = self._run(sys.executable, "ours", recipe, out)
            apart = f"{self._apart(Path(out), peer_out):.1%}" if row.method == "tsv_m" else ""
            rows.append(f"| {title} | {ours.cpu:.1f} | **{peer.cpu / ours.cpu:.1f}** | {apart} | "
                        f"{ours.anonymous >> 20} | {peer.anonymous >> 20} |")  # fmt: skip
            print(rows[-1], file=sys.stderr)
        rough = self._run(sys.executable, "sketch", str(self.home), "0.3")
        rows.append(f"| RESM, k = 10 %, sketched | {rough.cpu:.1f} | **{peer.cpu / rough.cpu:.1f}** | | "
                    f"{rough.anonymous >> 20} | {peer.anonymous >> 20} |")  # fmt: skip
        return [
            f"Spectral, without embeddings and head: CPU seconds; FusionBench's TSV-M at k = r/T ({peer.cpu:.1f} s)",
            "over ours; relative distance of the layers' deltas; peak anonymous MB above imports. Sketched are a large",
            f"family's first pictures, merged, not written: they leave {rough.said['excess']:.1%} more of a delta, at",
            f"most, than the best of their rank; their singular values are low by {rough.said['low']:.1%} on average.",
            "Aims: 2 at k = r/T within a distance of 2 %, 5 at k = 10 %, 10 sketched with at most 3 % more left.",
            "",
            "| method | ours s | FusionBench / ours | distance | ours MB | FusionBench MB |",
            "|---|---|---|---|---|---|",
            *rows,
        ]

    def profile(self) -> list[str]:
        floor = self._least("floor", str(self.folder / "floor"), *(str(self.home / m) for m in ("base", *EXPERTS)))
        cost = {how: self._least("profile", str(self.home), how) for how in ("sampled", "exact")}
        return [
            "A new family's profile, of the matrices in its layers: CPU as a multiple of reading its models and",
            "writing one. The sampled one gives the first maps of signs and cosines, the exact one stays. Aims:",
            "at most 1 sampled, 8 exact.",
            "",
            "| profile | multiple of the floor |",
            "|---|---|",
            *(f"| {how} | {one.cpu / floor.cpu:.2f} |" for how, one in cost.items()),
        ]

    def live(self) -> list[str]:
        said = self._run(sys.executable, "live", str(self.home), "resm").said
        n, shown, mean = said["matrices"], said["gesdd"], said["gesdd_each"]
        each = {  # CPU seconds, and those of the full SVDs that they stand for
            "first look, a matrix": (said["cold"] / n, mean),
            "first look, the shown matrix": (said["shown"], shown),
            "rank, the shown matrix": (said["rank"], shown),
            "two polar factors of its kept directions alone": (said["polar"], shown),
            "rank, the shown matrix, a stop found in idle time": (said["step"], shown),
            "weight, a matrix": (said["weight"] / n, mean),
            "layer outlier weight, a matrix": (said["layer"] / n, mean),
            "weights of the shown matrix from its fold": (said["materialise"], shown),
            "a product of those shapes alone": (said["product"], shown),
        }
        return [
            f"Live, RESM at k = 10 %, {self.home.name}: CPU until a move's numbers are there, {n} matrices. The shown",
            "matrix is layer 0's q. gesdd is LAPACK's full SVD of a matrix's deltas, timed for one of each shape:",
            f"{shown:.2f} s for the {len(EXPERTS)} of the shown matrix, {mean:.2f} s for those of one on average;",
            "`a matrix` is held against the latter. Aims: 50 for a rank, 10,000 for a weight or outlier weight, 150",
            "for weights from a fold.",
            "A weight's move takes all matrices at once, most of it Python's time a matrix, whatever its size.",
            "A rank's is the least of three stops not met before; it cannot do without two polar factors, here of the",
            "lowest. No route to the weights from a fold can do without the product.",
            "",
            "| move | CPU ms | gesdd / move |",
            "|---|---|---|",
            *(f"| {name} | {1e3 * cost:,.3g} | {full / cost:,.0f} |" for name, (cost, full) in each.items()),
            "",
            f"The recipe's plan takes {1e3 * said['planned']:.1f} ms a move. 224 matrices, as an 8 B model has:",
            f"{224e3 * each['weight, a matrix'][0]:.0f} ms for the numbers of a weight move (extrapolated from {n}), "
            f"{1e3 * said['drawn']:.0f} ms to draw all pictures of all tabs.",
        ]

    def chat(self) -> list[str]:
        said = self._run(sys.executable, "side", str(self.home)).said
        rows = [f"| {tokens} | {1e3 * dense:.1f} | {1e3 * beside:.1f} | **{beside / dense:.2f}** |"
                for tokens, (dense, beside) in said["seconds"].items()]  # fmt: skip
        return [
            f"Chat before weights are written, RESM at k = 10 %, {said['matrices']} matrices in float32: CPU of one",
            "pass through the layers, with written weights and through the folds beside the base's. Aim: at most 1.6",
            "at 16 tokens and more.",
            "",
            "| tokens at once | written ms | folds ms | folds / written |",
            "|---|---|---|---|",
            *rows,
        ]

    def _loop(self, method: str, models: Sequence[str], floor: Cost) -> str:
        return f"{self._least('bare', method, str(self.folder / 'floor'), *models).cpu / floor.cpu:.1f}"

    def _least(self, runner: str, *args: str, python: str = sys.executable) -> Cost:
        """Of runs without a pause: memory that a virtual machine has given back takes it thrice as long to get."""
        return min((self._run(python, runner, *args) for _ in range(self.repeat)), key=lambda cost: cost.cpu)

    def _run(self, python: str, runner: str, *args: str) -> Cost:
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        return run([python, "-m", f"benchmarks.runners.{runner}", *args], ROOT)

    def _recipe(self, row: Row) -> tuple[str, str]:
        path = self.folder / f"{row.method}.yml"
        path.write_text(row.recipe(self.home))
        return str(path), str(self.folder / "out")

    def _apart(self, ours: Path, theirs: Path) -> float:
        """Relative distance of our merged layers from the peer's, both rounded to bfloat16."""
        merged, base, peer = _load(ours), _load(self.home / "base"), load_file(theirs)
        far, size = 0.0, 0.0
        for name, delta in peer.items():
            expected = (base[name].float() + delta).bfloat16().float()
            far += float((merged[name].float() - expected).square().sum())
            size += float(delta.square().sum())
        return (far / size) ** 0.5


def _cell(reached: float, aim: float | None, *, up: bool = False) -> str:
    """A ratio, and in brackets what it should be at most, or with `up` at least."""
    if not aim:
        return f"{reached:.1f}"
    met = reached >= aim if up else reached <= aim
    return f"{reached:.1f} ({'>=' if up else '<='} {aim:g}{'' if met else ', missed'})"


def _load(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for path in sorted(folder.glob("*.safetensors")) for k, v in load_file(path).items()}


def _environment(folder: Path) -> str:
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, PEERS[0]], check=True)
        subprocess.run([*pip, *PEERS[1:]], check=True)
        subprocess.run([*pip, "--no-deps", "fusion-bench==0.2.33"], check=True)
    return str(python)


def _head(size: str) -> list[str]:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "safetensors"))
    return [
        "# Speed and memory",
        "",
        f"`make bench SIZE={size}`: Python {platform.python_version()}, {packages},",
        f"mergekit 0.1.5, FusionBench 0.2.33; {platform.machine()} with {torch.backends.cpu.get_cpu_capability()}, "
        f"one of {os.cpu_count()} cores.",
        "Ratios of one run; they vary by about 30 % from run to run. The models are made up (`benchmarks/family.py`):",
        "`small` has 134 million parameters, `layer8b` is a layer of an 8 B model, cut to one matrix of each shape.",
        "",
    ]


if __name__ == "__main__":
    main()
