"""What a model is, where answers are kept under its name."""

import hashlib

from eval.running.mixed import Mixed
from merging.checkpoint import Checkpoint
from merging.companions import companions, voice
from merging.model_files import GENERATION, TEMPLATE, TOKENIZER
from merging.plan import Plan
from merging.stage import Stage

_TEXTS = ("config.json", GENERATION, TEMPLATE, *TOKENIZER)


def identity(model: Checkpoint | Plan | Mixed) -> str:
    """sha256 of what decides a model's answers: its weights, its config, its tokenizer and its chat template."""
    if isinstance(model, Mixed):
        return hashlib.sha256(f"{identity(model.base)} {model.key} {model.mixing}".encode()).hexdigest()
    if isinstance(model, Stage):
        return identity(model.plan)  # the answers of a merge, whether it feeds another or not
    if isinstance(model, Plan):
        weights, files = model.digest, companions(model).files
    else:
        home, texts = model.folders[-1], voice(model)
        paths = [(home if name in _TEXTS[:2] else texts) / name for name in _TEXTS]
        weights, files = model.fingerprint, {path.name: path.read_bytes() for path in paths if path.is_file()}
    digest = hashlib.sha256(weights.encode())
    for name in _TEXTS:
        if name in files:
            digest.update(f"\0{name}\0{len(files[name])}\0".encode() + files[name])
    return digest.hexdigest()
