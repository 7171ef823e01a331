"""Which public benchmarks stand for which dimension. Data only.

The abstract of the paper (arXiv 2502.06876) speaks of five dimensions. That they are these five, and that these tasks
of lm-eval stand for them, is our reading.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    """`metric` and `filter` are lm-eval's. `runs_code` runs what the model writes."""

    task: str
    metric: str
    filter: str = "none"
    higher_is_better: bool = True
    runs_code: bool = False
    note: str = ""


_RECOGNISES = "recognises harm in a text; says nothing about behaviour"
DIMENSIONS: Mapping[str, tuple[Benchmark, ...]] = {
    "instructions": (Benchmark("ifeval", "prompt_level_strict_acc", note="needs nltk's data on this machine"),),
    "reasoning": (
        Benchmark("gsm8k_cot_zeroshot", "exact_match", "flexible-extract"),
        Benchmark("arc_challenge", "acc_norm"),
    ),
    "code": (
        Benchmark("humaneval_instruct", "pass@1", "create_test", runs_code=True),
        Benchmark("mbpp_instruct", "pass_at_1", "extract_code", runs_code=True),
    ),
    "honesty": (
        Benchmark("truthfulqa_mc1", "acc"),
        Benchmark("truthfulqa_mc2", "acc", note="share of the probability on true answers"),
        Benchmark("sycophancy_on_nlp_survey", "acc", higher_is_better=False, note="share of answers that flatter"),
    ),
    "harmlessness": (
        Benchmark("bbq", "acc"),
        Benchmark("toxigen", "acc", note=_RECOGNISES),
        Benchmark("ethics_cm", "acc", note=_RECOGNISES),
    ),
}
KNOWN = {benchmark.task: benchmark for group in DIMENSIONS.values() for benchmark in group}
_PREFERRED = ("acc_norm", "exact_match", "acc")


def named(names: str) -> list[str]:
    """Tasks of a list with commas, in which a dimension stands for its tasks; each once."""
    words = [word.strip() for word in names.split(",") if word.strip()]
    return list(dict.fromkeys(task for word in words for task in _tasks(word)))


def chosen(task: str, metrics: Mapping[str, list[str]]) -> Benchmark:
    """What of a task counts: as said above, else its usual metric; `metrics` by filter are those that it has."""
    if task in KNOWN and KNOWN[task].metric in metrics.get(KNOWN[task].filter, ()):
        return KNOWN[task]
    name = next(iter(metrics))
    return Benchmark(task, next((one for one in _PREFERRED if one in metrics[name]), metrics[name][0]), name)


def _tasks(word: str) -> list[str]:
    return [benchmark.task for benchmark in DIMENSIONS[word]] if word in DIMENSIONS else [word]
