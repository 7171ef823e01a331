"""Whether a judge is one of the models behind an answer, or of their family: neither judges its own kind fairly."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

from merging.checkpoint import Checkpoint
from merging.errors import UserError
from merging.hub_cache import HUB_ID
from merging.manifest import read_manifest
from merging.plan import Plan
from merging.stage import leaves


def check_kin(judge: str, models: Sequence[Checkpoint | Plan]) -> str:
    """A warning where the judge is of the same family as a model behind these, else "".

    Raises UserError where it is one of them, by the last part of its name: a copy under another owner is the same.
    """
    behind = [part for model in models for part in _behind(model)]
    names = [name for part in behind for name in _names(part)]
    if same := next((name for name in names if _last(name) == _last(judge)), None):
        raise UserError("E_JUDGE_KIN", f"{judge} is behind these answers itself ({same}), so it must not judge them.",
                        do="Choose a judge of another family.")  # fmt: skip
    families = {word for part in behind for word in _words(str(part.config.get("model_type", "")))[:1]}
    families |= {word for name in names if HUB_ID.fullmatch(name) for word in _words(_last(name))[:1]}
    if shared := sorted(families & set(_words(judge))):
        return (
            f"{judge} seems to be of the same family as a model that it judges ({', '.join(shared)}): it may favour it."
        )
    return ""


def _behind(model: Checkpoint | Plan) -> Iterator[Checkpoint]:
    for leaf in leaves(*model.models) if isinstance(model, Plan) else leaves(model):
        yield from leaf.chain


def _names(model: Checkpoint) -> Iterator[str]:
    """As given, as its maker called it, and of a merge the models that it was made from."""
    yield model.source
    if isinstance(own := model.config.get("_name_or_path"), str) and own:
        yield own
    with suppress(UserError):  # no merge of ours, or none that can be read
        yield from (source["model"] for source in read_manifest(model.folder)["sources"])


def _last(name: str) -> str:
    return re.split(r"[/\\]", name.partition("@")[0].rstrip("/\\"))[-1].lower()


def _words(text: str) -> list[str]:
    return re.findall("[a-z]{2,}", text.lower())
