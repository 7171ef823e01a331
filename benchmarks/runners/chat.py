"""What a page's worker holds while it chats: FAMILY. One question to base, experts and the live merge by its folds,
then to the merge with its weights written; anonymous bytes after each step.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.family import EXPERTS
from benchmarks.measured import anonymous
from benchmarks.runners.clock import done, ready
from eval.answering import Answering
from eval.running.chat import Answered
from eval.worker import Ask, Move, Sources
from merging.events import Notice
from merging.live_events import FoldedReady
from merging.recipe import Expert, Recipe

QUESTION = [{"role": "user", "content": "Who keeps the lighthouse?"}]
start, held = ready(), {"imports": anonymous()}
family = Path(sys.argv[1])
recipe = Recipe("resm", "base", tuple(Expert(name, (("weight", 1.0),)) for name in EXPERTS),
                (("rank_mode", "uniform"), ("rank_budget", 0.3), ("outlier_mode", "none"),
                 ("exclude", ("*embed*", "*lm_head*"))), folder=family)  # fmt: skip
sources = Sources(str(family / "base"), tuple(str(family / name) for name in EXPERTS), EXPERTS)
told: list[str] = []


def ask(*names: str) -> None:
    turns = dict.fromkeys(names, QUESTION)
    events = list(answering.ask(Ask("s", sources, recipe, turns, max_new_tokens=16), lambda: False))
    answered = {event.model for event in events if isinstance(event, Answered) and event.n_tokens}
    if answered != set(names):
        raise ValueError(f"only {sorted(answered)} answered")
    told.extend(event.text for event in events if isinstance(event, Notice))


with TemporaryDirectory() as folder:
    answering = Answering(Path(folder))
    move = answering.move(Move("s", sources, recipe, None), lambda: False)
    next(event for event in move if isinstance(event, FoldedReady))
    held["pictures and folds"] = anonymous()
    ask("base", *EXPERTS, "merge")
    held["base, experts and merge by its folds have answered"] = anonymous()
    list(move)  # writes the weights
    ask("merge")
    held["the merge has answered by its written weights"] = anonymous()
done(start, held=held, told=told)
