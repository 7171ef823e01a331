"""What a unit's experts read, for the merges that need it: prompts of each one's own skill, which it answers itself."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eval.calibrating.calibrate import calibrate
from eval.calibrating.router import fit_router
from eval.calibrating.texts import ROUTED, answer, read_texts
from eval.judging.probes import H
from eval.running.models import Models
from merging.methods import METHODS
from merging.models import open_model
from merging.recipe import Recipe

WriteTexts = Callable[[Models, Sequence[str], int, Path], None]  # of these experts, so many each, into a file


def own_texts(models: Models, experts: Sequence[str], each: int, log: Path) -> None:
    """Writes the experts' answers to Town's calibration prompts."""
    sources = [open_model(expert, Path()) for expert in experts]
    for _ in answer(models, sources, read_texts("town", H, each), log):
        pass


@dataclass(frozen=True)
class Calibrations:
    """Measured when a setting asks for it and kept in `folder` for the next one. `texts` writes the texts there."""

    folder: Path
    texts: Callable[[Path], None]

    def of(self, recipe: Recipe, each: int) -> Recipe:
        """The recipe with its calibration. What a merged stream reads belongs to one setting."""
        texts = self.folder / "texts.jsonl"
        if not texts.exists():
            self.texts(texts)
        stream = METHODS[recipe.method].calibrated
        setting = hashlib.sha256(recipe.to_yaml().encode()).hexdigest() if stream in ("merged", "learned") else ""
        out = self.folder / f"{stream}{setting}-{each}"
        if not out.exists():
            for _ in calibrate(recipe, out, str(texts), each, "cpu"):
                pass
        return replace(recipe, calibration=str(out))


def routes(base: str, questions: Sequence[Sequence[dict[str, str]]]) -> list[str]:
    """The expert that a router on the base's hidden states gives each question to; it has seen no probe."""
    prompts = zip(H, read_texts("town", H, ROUTED), strict=True)
    own: dict[str, list[list[dict[str, str]]]] = {h: [text.question() for text in texts] for h, texts in prompts}
    router = fit_router(Models("cpu").model(open_model(base, Path())), own)
    return [route.expert for route in router.routes(questions)]
