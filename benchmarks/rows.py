"""What `make bench` merges: methods with their settings, and what each is to reach."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.family import EXPERTS


@dataclass(frozen=True)
class Row:
    """One method with its settings; `models` of the family take part."""

    method: str
    settings: dict[str, Any]
    own: dict[str, Any]  # of each expert
    experts: int = 3
    base: bool = True
    aim: tuple[float, float] | None = None  # floors at most, times faster than mergekit at least
    profile: bool = False  # it takes its thresholds from the profile that the live merge keeps

    def recipe(self, home: Path) -> str:
        models = [{"model": str(home / name), "parameters": self.own} for name in EXPERTS[: self.experts]]
        document = {"merge_method": self.method, "models": models, "parameters": self.settings, "dtype": "bfloat16"}
        return yaml.safe_dump({**document, **({"base_model": str(home / "base")} if self.base else {})})


HALF = {"weight": 0.33, "density": 0.5}
PROFILED = 3.0  # floors at most where the thresholds are known
ROWS = (
    Row("linear", {}, {"weight": 1.0}, base=False, aim=(1.5, 2.5)),
    Row("task_arithmetic", {}, {"weight": 0.3}, aim=(1.5, 2.5)),
    Row("slerp", {"t": 0.5}, {}, experts=1, aim=(2.0, 1.0)),
    Row("model_stock", {}, {}, aim=(2.0, 1.5)),
    Row("ties", {}, HALF, aim=(6.0, 8.0), profile=True),
    Row("breadcrumbs", {}, HALF | {"gamma": 0.01}, aim=(6.0, 8.0), profile=True),
    Row("della", {}, HALF | {"epsilon": 0.1}, aim=(6.0, 8.0)),
    Row("sce", {"select_topk": 0.5}, {}, aim=(6.0, 8.0)),
    Row("dare_linear", {}, HALF, aim=(3.0, 4.0)),
    Row("dare_ties", {}, HALF, aim=(3.0, 4.0)),
    Row("karcher", {}, {}, base=False),
)
EXCLUDE = {"exclude": ["*embed*", "*lm_head*"]}
UNIFORM = {"rank_mode": "uniform", "outlier_mode": "none", **EXCLUDE}
SPECTRAL = (
    ("TSV-M, k = r/T", Row("tsv_m", EXCLUDE, {})),
    ("RESM, k = r/T, clamped", Row("resm", {"rank_mode": "uniform", **EXCLUDE}, {})),
    ("RESM, k = 10 %", Row("resm", UNIFORM | {"rank_budget": 0.3}, {})),
)
