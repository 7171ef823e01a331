"""Makes the Town family, its probes and its card: `python -m assets.town.make [--seed 0] [--only helpful] [--quick]`.

With `--second` the base of the second family, which the paper's comparison needs: GPT-NeoX, of the same size and data.

One seed and one thread: the same bytes on the same machine and torch version. Another machine gives other bytes, so
the weights are part of the repository, and this is the record of how they were made.
"""

import argparse
import json
import random
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from assets.town.card import card, score, scores_json
from assets.town.mixes import MIXES, examples
from assets.town.probes import freeze, to_json
from assets.town.train import BATCH, Schedule, encode, new_model, save, train, train_tokenizer

HERE = Path(__file__).parent
SECOND = HERE.parent / "town_neox"
SCHEDULES = {
    "base": Schedule(steps=3800, rate=3e-3, decay=0.01),
    "helpful": Schedule(steps=1200, rate=1e-3),
    "honest": Schedule(steps=200, rate=5e-4),
    "harmless": Schedule(steps=200, rate=5e-4),
}
QUICK_STEPS = 20


def make(name: str, schedule: Schedule, seed: int, out: Path, kind: str = "llama") -> float:
    """Trains one model and saves it; experts start from the base as saved. Returns CPU minutes."""
    rng = random.Random(f"{seed} {name}")
    read = list(examples(MIXES[name], schedule.steps * BATCH, rng))
    if name == "base":
        model = new_model(seed, kind)
        tokenizer = train_tokenizer(" ".join((*(text for _, text in one.turns), one.answer)) for one in read[:30_000])
    else:
        model = AutoModelForCausalLM.from_pretrained(out / "base", attn_implementation="eager")
        tokenizer = AutoTokenizer.from_pretrained(out / "base")
    encoded = encode(tokenizer, read)
    print(f"{name}: {schedule.steps} steps, {sum(len(ids) for ids, _ in encoded) / 1e6:.2f}M tokens", flush=True)
    minutes = train(model, encoded, schedule, rng, name)
    save(model, tokenizer, out / name)
    return minutes


def write_card(out: Path, seed: int, minutes: dict[str, float]) -> None:
    """Scores what was saved; the minutes of models that were not made again are kept from the last card."""
    whole = freeze()
    probes = whole.model_copy(update={"probes": tuple(probe for probe in whole.probes if probe.split == "test")})
    results = {}
    for name in SCHEDULES:
        results[name] = score(out / name, probes)
        side = results[name].scores
        print(f"{name}: helpful {side.helpful.score:.3f}, honest {side.honest.score:.3f}, "
              f"harmless {side.harmless.score:.3f}, well formed {side.well_formed:.3f}", flush=True)  # fmt: skip
    past = out / "scores.json"
    if past.exists():
        minutes = json.loads(past.read_text())["cpu_minutes"] | minutes
    past.write_text(scores_json(results, seed, minutes))
    (out / "README.md").write_text(card(probes, results, seed, minutes))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m assets.town.make", description="Make the Town family.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="*", choices=list(SCHEDULES), default=list(SCHEDULES), help="train only these; none: only score"
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps each, to see that everything runs")
    parser.add_argument("--second", action="store_true", help=f"only the second family's base, into {SECOND.name}")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for models and card (default: this one)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.disable_progress_bar()
    if options.second:
        make("base", SCHEDULES["base"], options.seed, SECOND, "gpt_neox")
        return
    if options.out == HERE:
        (HERE.parent / "probes" / "town.json").write_text(to_json(freeze()))
    minutes = {}
    for name, schedule in SCHEDULES.items():
        if name in options.only:
            if options.quick:
                schedule = Schedule(QUICK_STEPS, schedule.rate, schedule.decay)
            minutes[name] = make(name, schedule, options.seed, options.out)
    write_card(options.out, options.seed, minutes)


if __name__ == "__main__":
    main()
