"""What scores, health, tries and a search say, in the form of `findings.py`: a sentence, and how to read it."""

from collections.abc import Mapping, Sequence
from html import escape
from math import hypot

from eval.judging.probes import H
from eval.scoring.board import HScore, Scores
from eval.scoring.health import Health
from eval.scoring.plots import keeps
from eval.scoring.tries import Try, luck
from merging.plots.scale import hundredths
from ui.found import Found
from ui.marks import finding, label


def board_finding(scores: Mapping[str, Scores], probes: str = "Town") -> str:
    """Against the base, side by side; within noise is `cannot tell`."""
    if "merge" not in scores:
        return finding("This merge has not been scored.", "Scoring asks it every probe and checks each answer by rule.")
    merge, base = scores["merge"], scores.get("base")
    n = getattr(merge, H[0]).n
    read = f"{n} {escape(probes)} probes per H, 95 % intervals."
    if merge.broken > 0.05:
        read += f" {hundredths(merge.broken)} of 100 answers are broken."
    if base is None:
        shares = " · ".join(f"{label(h, h)} {hundredths(getattr(merge, h).score)}" for h in H)
        return finding(f"Of 100 probes it passes: {shares}.", read)
    sides = {h: compare(getattr(merge, h), getattr(base, h)) for h in H}
    better, worse, open_ = ([h for h in H if sides[h] == s] for s in (1, -1, 0))
    if len(better) == len(H):
        lost = [h for h in H if (kept := _keeps(scores, h)) is not None and kept < 0.5]
        if len(lost) == len(H):
            return finding("Beats the base on all three, but loses most of what was learned.", read)
        if lost:
            return finding(f"Beats the base on all three, but loses most of what {_all(lost)} learned.", read)
        return finding("Beats the base on all three and keeps most of what was learned.", read)
    if len(worse) == len(H):
        return finding("Worse than the base on all three.", read)
    if len(open_) == len(H):
        return finding("Cannot tell from the base on any of the three.", read)
    parts = [f"better than the base on {_all(better)}"] if better else []
    if worse:
        parts.append(f"worse {'' if better else 'than the base '}on {_all(worse)}")
    if open_:
        parts.append(f"cannot tell on {_all(open_)}")
    sentence = "; ".join(parts)
    return finding(sentence[0].upper() + sentence[1:] + ".", read)


def health_finding(health: Health) -> str:
    """Sound or broken, from what takes seconds."""
    read = " ".join(health.alarms) or f"{health.spoken} short answers and {len(health.sides)} good ones read."
    if health.alarms:
        return finding("This merge looks broken.", read)
    return finding("Sound, as far as a few seconds tell.", read)


def tried_finding(tries: Sequence[Try], sure: Sequence[float], now: str) -> str:
    """Whether the merge on the desk is among the best tries, by helpful and harmless."""
    read = f"{len(tries)} merges tried. Click a dot, or choose below, to go back to its settings."
    if len(tries) == 1:
        return finding("One merge tried: nothing to compare it with.", "Each merge that is scored becomes a dot here.")
    read += f" Their best mean is about {hundredths(luck(tries))} points of luck."
    chance = next((chance for one, chance in zip(tries, sure, strict=True) if one.digest == now), None)
    if chance is None:
        return finding("The merge on the desk is not among those tried.", read)
    if chance < 0.05:
        return finding("Another try beats this merge on helpful and harmless.", read)
    if chance > 0.95:
        return finding("No other try beats this merge on helpful and harmless.", read)
    return finding(f"This merge is among the best tries in {hundredths(chance)} of 100 draws.", read)


def search_finding(found: Found | None) -> str:
    """What the search says of the recipe it began with; before it, what it will do."""
    if found is None or not found.tries:
        return finding("Let the machine turn the knobs.",
                     "It begins with the recipe on the desk: many tries on few probes, the best of them on more, two "
                     "finalists on probes that nothing was chosen by.")  # fmt: skip
    read = "A click on a dot loads its settings. Small differences are luck until the unseen probes have spoken."
    if not (found.done and found.finalists):
        return finding(f"{len(found.tries)} tries so far.", read)
    winner = found.finalists[0]
    gap = winner.against
    if gap is None:
        return finding("Nothing beat the recipe that the search began with.", read)
    points = abs(round(100 * gap.mean, 1))
    unseen = f"unseen {'harmless ' if found.aim == 'harmless' else ''}probes"
    if gap.low > 0:
        return finding(f"Try {winner.number} beats the recipe it began with by {points:g} on {unseen}.", read)
    if gap.high < 0:
        return finding(f"On {unseen} try {winner.number} is {points:g} worse than the recipe it began with.", read)
    return finding(f"{unseen.capitalize()} cannot tell try {winner.number} from the recipe it began with.", read)


def compare(a: HScore, b: HScore) -> int:
    """1 better, -1 worse, 0 cannot tell: Newcombe's 95 % interval of the difference from both Wilson intervals."""
    gap = a.score - b.score
    low = gap - hypot(a.score - a.low, b.high - b.score)
    high = gap + hypot(a.high - a.score, b.score - b.low)
    return 1 if low > 0 else -1 if high < 0 else 0


def _keeps(scores: Mapping[str, Scores], h: str) -> float | None:
    sides = {model: getattr(score, h) for model, score in scores.items()}
    return keeps(sides, max((s.score for m, s in sides.items() if m not in ("merge", "base")), default=None))


def _all(hs: Sequence[str]) -> str:
    """`helpful and honest`, each with its mark."""
    shown = [label(h, h) for h in hs]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
