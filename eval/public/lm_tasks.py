"""The only file that calls lm-evaluation-harness: finds tasks, wraps a model, has documents answered and marked."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from eval.public.tasks import DIMENSIONS
from eval.running.runtime import use_cores
from merging.errors import UserError, all_of
from merging.words import nearest

if TYPE_CHECKING:
    from eval.running.models import Model

try:
    import lm_eval  # pyright: ignore[reportMissingImports]
    from datasets.exceptions import DatasetsError  # pyright: ignore[reportMissingImports]
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise UserError(
        "E_EXTRA",
        f"benchmarks need lm-evaluation-harness, which is not installed here ({error.name}).",
        do="Install it: .venv/bin/pip install -r requirements-benchmarks.txt",
    ) from error

_BATCH = 8
_LOOK = 16  # tokens whose logits are compared
Task = Any  # lm-eval's own


def load_tasks(names: Sequence[str], folder: Path | None, run_code: bool) -> dict[str, Task]:
    """Tasks by name, groups and tags taken apart, with their documents. Raises one UserError that names all that lack
    something; tasks that run the model's code are refused before any of their files is run.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if not names:
        raise UserError("E_USAGE", "--tasks is empty.", do=f"Name tasks, or one of: {', '.join(DIMENSIONS)}.")
    if folder is not None and not folder.is_dir():
        raise UserError("E_USAGE", "there is no such folder of tasks.", where=str(folder))
    manager = _manager(names, folder)
    index = manager.task_index
    if unknown := next((name for name in names if name not in index), None):
        raise UserError("E_UNKNOWN_TASK", f"lm-eval has no task called {unknown[:60]!r}.",
                        do=nearest(unknown, [*DIMENSIONS, *index]))  # fmt: skip
    leaves = {leaf for name in names for leaf in _leaves(name, index)}
    if not run_code and (unsafe := sorted(leaf for leaf in leaves if (index[leaf].cfg or {}).get("unsafe_code"))):
        raise _runs_code(unsafe)
    found: dict[str, Task] = {}
    problems = []
    for name in names:
        try:
            found |= manager.load([name])["tasks"]
        except ImportError as error:
            what = f"it needs the Python package {error.name}, which is not installed."
            problems.append(UserError("E_BENCHMARK", what, where=name, do="Install it, or leave the task out."))
        except (OSError, ValueError, DatasetsError) as error:
            sets = ", ".join(
                sorted({str((index[leaf].cfg or {}).get("dataset_path")) for leaf in _leaves(name, index)})
            )
            what = f"its data set {sets} cannot be had here: {str(error).strip().splitlines()[0][:200]}"
            do = "Fetch it once with --download, or leave the task out."
            problems.append(UserError("E_BENCHMARK_SET", what, where=name, do=do))
    if problems:
        raise all_of(problems, kept="No model was asked.")
    if not run_code and (unsafe := sorted(name for name, task in found.items() if getattr(task, "UNSAFE_CODE", False))):
        raise _runs_code(unsafe)
    return found


def run(
    model: "Model", tasks: Mapping[str, Task], drawn: Mapping[str, Sequence[int]], run_code: bool
) -> dict[str, list[dict[str, Any]]]:
    """lm-eval's log by task: an entry for each document drawn and each filter. The model's chat template is used."""
    use_cores(model.module)
    try:
        found = lm_eval.simple_evaluate(
            model=wrapped(model),
            tasks=list(tasks.values()),
            samples={name: list(indices) for name, indices in drawn.items()},
            task_manager=TaskManager(include_defaults=False),  # else thousands of files are read once more
            apply_chat_template=bool(model.tokenizer.chat_template),
            bootstrap_iters=0,
            random_seed=0,
            numpy_random_seed=0,
            torch_random_seed=0,
            fewshot_random_seed=0,
            confirm_run_unsafe_code=run_code,
        )
    except ValueError as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise UserError("E_BENCHMARK", f"lm-eval refuses: {reason}", where=", ".join(tasks)) from error
    return found["samples"]


def wrapped(model: "Model") -> Any:
    """The model as lm-eval takes it. lm-eval ties its head to its embedding if the config says so, even where the head
    has weights of its own: then another model would be marked than the one that is exported.
    """
    module = model.module
    n = min(_LOOK, int(module.config.get_text_config().vocab_size))
    before = _logits(module, n)
    lm = HFLM(pretrained=module, tokenizer=model.tokenizer, backend="causal", batch_size=_BATCH)
    if not torch.equal(before, _logits(module, n)):
        raise UserError("E_TIED", "lm-eval ties the head to the embedding, which changes this model's answers.",
                        do='Set "tie_word_embeddings": false in its config.json.')  # fmt: skip
    return lm


@torch.inference_mode()
def _logits(module: torch.nn.Module, n: int) -> torch.Tensor:
    device = next(module.parameters()).device
    return module.eval()(input_ids=torch.arange(n, device=device)[None]).logits


def _manager(names: Sequence[str], folder: Path | None) -> Any:
    """Reading lm-eval's own tasks takes many seconds, so they are left out where the folder has all that is asked."""
    if folder is None:
        return TaskManager()
    own = TaskManager(include_path=str(folder), include_defaults=False)
    return own if all(name in own.task_index for name in names) else TaskManager(include_path=str(folder))


def _leaves(name: str, index: Mapping[str, Any]) -> Iterator[str]:
    """The tasks of a group or a tag by name; a task itself."""
    entry = index.get(name)
    if entry is None:
        return
    listed = entry.tags if entry.kind.name == "TAG" else (entry.cfg or {}).get("task")
    if isinstance(listed, str):
        yield name
    for child in listed if isinstance(listed, list | set) else ():
        inner = child if isinstance(child, str) else child.get("task", child.get("group"))
        for word in [inner] if isinstance(inner, str) else inner or ():
            if isinstance(word, str) and word != name:
                yield from _leaves(word, index)


def _runs_code(tasks: Sequence[str]) -> UserError:
    return UserError("E_RUN_CODE", f"code that the model writes would be run by {', '.join(tasks)}.",
                     kept="No model was asked.",
                     do="Leave these tasks out, or add --run-code where that can do no harm.")  # fmt: skip
