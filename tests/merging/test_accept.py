"""The test of a finished export before it gets its name: refused, stopped and killed."""

import os
import shutil
import signal

import pytest

from merging import writer
from merging.engine import merged_tensors
from merging.errors import UserError
from merging.events import Finished, Notice, Reloaded, TensorDone
from merging.manifest import verify
from merging.plan import make_plan
from merging.recipe import parse_recipe

RECIPE = "name: pico\nmerge_method: task_arithmetic\nbase_model: base\nmodels: [{model: helpful}, {model: honest}]\n"
GOOD = Reloaded(7, 7, 0.0, 0.01, 21, 21, True, True, 1.0)


def passing(folder):
    assert (folder / "model.safetensors").is_file()
    assert (folder / "tokenizer.json").is_file()
    yield GOOD


def refusing(folder):
    yield Notice("looked")
    raise UserError("E_MODEL", "it does not load.", where="out", do="Mend it.")


def write(family, accept=None, resume=False):
    plan = make_plan(parse_recipe(RECIPE, family))
    return list(
        writer.write(plan, family / "out", lambda skip: merged_tensors(plan, skip=skip), accept=accept, resume=resume)
    )


def test_what_was_tested_stands_in_the_card(family):
    events = write(family, passing)
    assert GOOD in events
    assert isinstance(events[-1], Finished)
    assert "A chat turn with its chat template ends by itself" in (family / "out" / "README.md").read_text()
    assert verify(family / "out").sources == "same"


def test_a_refusal_leaves_nothing_at_out_and_keeps_the_weights(family):
    with pytest.raises(UserError) as raised:
        write(family, refusing)
    assert (raised.value.code, raised.value.where) == ("E_MODEL", "out")
    assert raised.value.kept == "Nothing is at out; the finished weights are kept in .out.partial."
    assert not (family / "out").exists()
    with pytest.raises(UserError):  # tested again, and not computed again
        write(family, refusing, resume=True)
    events = write(family, resume=True)
    assert not any(isinstance(event, TensorDone) for event in events)
    assert "not loaded again" in (family / "out" / "README.md").read_text()
    assert verify(family / "out").sources == "same"


def test_killed_while_it_is_tested_it_goes_on_from_the_test(family):
    write(family, passing)
    shutil.move(family / "out", family / "whole")

    def deadly(folder):
        os.kill(os.getpid(), signal.SIGKILL)
        yield GOOD

    child = os.fork()
    if child == 0:
        try:
            write(family, deadly)
        finally:  # never back into pytest
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert not (family / "out").exists()
    events = write(family, passing, resume=True)
    assert not any(isinstance(event, TensorDone) for event in events)
    assert {path.name: path.read_bytes() for path in (family / "out").iterdir()} == {
        path.name: path.read_bytes() for path in (family / "whole").iterdir()
    }
