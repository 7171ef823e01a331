"""Experts of one skill share its prompts, so that their cluster reads each of them once."""

from pathlib import Path

from benchmarks.town_glue import SHIPPED, glued, write_prompts
from eval.calibrating.texts import read_for
from merging.plan import members
from merging.recipe import Expert, Recipe

NAMES = ("helpful-0", "helpful-1", "helpful-2", "harmless-1")


def test_a_cluster_reads_no_prompt_twice(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).symlink_to(SHIPPED.base.parent / name.partition("-")[0])
    models = tuple(Expert(str(tmp_path / name)) for name in NAMES)
    said: list[str] = []
    made = glued(Recipe("task_arithmetic", str(SHIPPED.base), models), said, grows=False)
    assert said == ["Clusters: helpful-0, helpful-1, helpful-2 | harmless-1"]
    write_prompts(tmp_path / "prompts.jsonl")
    cluster, alone = read_for(str(tmp_path / "prompts.jsonl"), members(made)[1:], 6)
    assert [text.expert for text in cluster] == ["helpful-0"] * 2 + ["helpful-1"] * 2 + ["helpful-2"] * 2
    assert len({text.messages for text in cluster}) == 6
    assert [text.expert for text in alone] == ["harmless-1"] * 6
