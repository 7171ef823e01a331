"""Named chat templates, rendered as chat software does; and which template wins under `auto`."""

import jinja2
import pytest

from merging.chat_templates import NAMED
from merging.companions import companions
from merging.model_files import TEMPLATE
from merging.plan import check, make_plan
from merging.recipe import Expert, Recipe

TALK = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "U1"},
    {"role": "assistant", "content": "A1"},
    {"role": "user", "content": "U2"},
]
RENDERED = {
    "alpaca": "S\n\n### Instruction:\nU1\n\n### Response:\nA1</s>\n\n### Instruction:\nU2\n\n### Response:\n",
    "chatml": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
    "<|im_start|>user\nU2<|im_end|>\n<|im_start|>assistant\n",
    "exaone": "[|system|]S[|endofturn|]\n[|user|]U1\n[|assistant|]A1[|endofturn|]\n[|user|]U2\n[|assistant|]",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "U1<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nU2<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s>[INST] S\n\nU1 [/INST] A1</s>[INST] U2 [/INST]",
}


@pytest.mark.parametrize("name", NAMED)
def test_a_named_template_is_its_makers_format(name):
    template = jinja2.Environment().from_string(NAMED[name])
    found = template.render(messages=TALK, add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
    assert found == RENDERED[name]


def recipe(family, template, names=("helpful", "honest", "harmless")):
    return Recipe("task_arithmetic", "base", tuple(map(Expert, names)), chat_template=template, folder=family)


def exported(family, template):
    return companions(make_plan(recipe(family, template))).files[TEMPLATE].decode()


def test_a_name_is_written_out_as_its_template(family):
    assert exported(family, "chatml") == NAMED["chatml"]


def test_auto_takes_the_template_that_most_models_have(family):
    before = exported(family, None)
    for name in ("helpful", "honest", "harmless"):
        (family / name / TEMPLATE).write_text("{{ messages[0]['content'] }}")
    assert exported(family, None) == before
    assert exported(family, "auto") == "{{ messages[0]['content'] }}"
    for name in ("helpful", "honest"):
        (family / name / TEMPLATE).write_text(before)  # three against one again, the other way round
    assert exported(family, "auto") == before


def test_a_name_that_is_none_tells_the_nearest(family):
    (problem,) = check(recipe(family, "chatlm")).problems
    assert problem.code == "E_TEMPLATE"
    assert "chatml" in problem.do
