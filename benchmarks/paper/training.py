"""The models of one unit: experts and mixtures, trained once and kept in a folder outside the repository."""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from assets.town import mixtures
from assets.town.lora import add_lora, save_lora
from assets.town.make import SCHEDULES
from assets.town.mixes import MIXES, Example, examples
from assets.town.train import BATCH, Schedule, encode, save, train
from eval.judging.probes import H
from eval.running.loading import load_source
from merging.models import open_model

ROOT = Path(__file__).resolve().parents[2]
Paradigm = Literal["full", "lora"]
BASES = {"llama": ROOT / "assets" / "town" / "base", "gpt_neox": ROOT / "assets" / "town_neox" / "base"}
MIXTURES = ("Fixed ratio", "Reward-scored selection", "Low-conflict selection")
# Of all trained things; a mixture reads fewer examples than the three experts together.
FULL = {h: SCHEDULES[h] for h in H} | {"mixture": Schedule(steps=600, rate=1e-3)}
LORA = {
    "helpful": Schedule(steps=1000, rate=3e-3),
    "honest": Schedule(steps=200, rate=2e-3),
    "harmless": Schedule(steps=200, rate=2e-3),
    "mixture": Schedule(steps=600, rate=3e-3),
}


@dataclass(frozen=True)
class Unit:
    """What is trained from one seed: three experts and three mixtures of one family in one paradigm."""

    family: str
    paradigm: Paradigm
    seed: int

    @property
    def base(self) -> Path:
        return BASES[self.family]

    @property
    def name(self) -> str:
        return f"{self.family}-{self.paradigm}-{self.seed}"


SEEDS = 3
# Every family and paradigm once, then again from the next seed: what is there of a stopped run is balanced.
UNITS = [Unit(f, p, seed) for seed in range(SEEDS) for p in ("full", "lora") for f in BASES]


@dataclass(frozen=True)
class Trainer:
    """Trains what `folder` lacks; `steps` cuts every schedule short, to see that everything runs."""

    unit: Unit
    folder: Path
    steps: int | None = None

    def expert(self, h: str) -> str:
        """The source of an expert, as a recipe names it."""
        if self.unit == Unit("llama", "full", 0):
            return str(BASES["llama"].parent / h)  # the shipped ones
        schedule = self._schedule(h)
        rng = random.Random(f"{self.unit.seed} {h}")
        return self._made(h, h, lambda: list(examples(MIXES[h], schedule.steps * BATCH, rng)), rng)

    def mixture(self, name: str) -> str:
        rng = random.Random(f"{self.unit.seed} {name}")
        return self._made(name.lower().replace(" ", "_"), "mixture", lambda: self._chosen(name), rng)

    def _chosen(self, name: str) -> list[Example]:
        kept = self._schedule("mixture").steps * BATCH
        pool = mixtures.draw_pool(kept, self.unit.seed)
        match name:
            case "Reward-scored selection":
                cost = [float(not example.ideal) for example in pool]
            case "Low-conflict selection":
                cost = self._disagreement(pool)
            case _:
                cost = [0.0] * len(pool)
        return mixtures.best(pool, cost, kept)

    def _disagreement(self, pool: list[Example]) -> list[float]:
        encoded = encode(AutoTokenizer.from_pretrained(self.unit.base), pool)
        experts = (load_source(open_model(self.expert(h), Path()), torch.bfloat16).eval() for h in H)
        return mixtures.disagreement(torch.stack([mixtures.log_likelihoods(expert, encoded) for expert in experts]))

    def _schedule(self, name: str) -> Schedule:
        whole = (FULL if self.unit.paradigm == "full" else LORA)[name]
        return whole if self.steps is None else Schedule(self.steps, whole.rate)

    def _made(self, name: str, schedule: str, read: Callable[[], list[Example]], rng: random.Random) -> str:
        home = self.folder / self.unit.name / name
        if not home.is_dir():
            part = home.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            print(f"{self.unit.name}: training {name}", flush=True)
            self._train(read(), self._schedule(schedule), rng, name, part)
            part.rename(home)
        return f"{self.unit.base}+{home}" if self.unit.paradigm == "lora" else str(home)

    def _train(self, read: list[Example], schedule: Schedule, rng: random.Random, name: str, out: Path) -> None:
        base, lora = self.unit.base, self.unit.paradigm == "lora"
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            base, dtype=torch.bfloat16, attn_implementation="eager"
        )
        tokenizer = AutoTokenizer.from_pretrained(base)
        if lora:
            add_lora(model, self.unit.seed)
        train(model, encode(tokenizer, read), schedule, rng, name)
        if lora:
            save_lora(model, base, out)
        else:
            save(model, tokenizer, out)
