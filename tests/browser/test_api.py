"""The public API over HTTP, as a program uses it; needs no browser."""

import zipfile

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

RECIPE = """
merge_method: task_arithmetic
base_model: assets/town/base
models:
- {model: assets/town/honest, parameters: {weight: 0.5}}
- {model: assets/town/harmless, parameters: {weight: 0.5}}
parameters: {lambda: 1.0}
"""


@pytest.fixture(scope="module")
def client(server: str) -> Client:
    return Client(server, verbose=False)


def test_only_the_four_functions_are_public(client: Client):
    listed = client.view_api(return_format="dict", print_info=False)
    assert isinstance(listed, dict)
    assert sorted(listed["named_endpoints"]) == ["/chat", "/check", "/merge", "/score"]


def test_check_lists_every_problem(client: Client):
    good = client.predict(RECIPE, api_name="/check")
    assert (good["ok"], good["estimate"]["n_parameters"] > 1_000_000) == (True, True)
    bad = client.predict(RECIPE.replace("lambda", "lamda").replace("town/honest", "town/nobody"), api_name="/check")
    assert not bad["ok"]
    assert {problem["code"] for problem in bad["problems"]} >= {"E_KEY"}
    assert len(bad["problems"]) == 2


def test_a_problem_is_plain_text(client: Client):
    with pytest.raises(AppError, match="at least one model"):
        client.predict("merge_method: ties", api_name="/check")


def test_merge_gives_a_zip_and_chat_an_answer_of_each_model(client: Client):
    with zipfile.ZipFile(client.predict(RECIPE, api_name="/merge")) as archive:
        assert "task_arithmetic/model.safetensors" in archive.namelist()
    answers = client.predict(RECIPE, "What is 7 plus 5?", api_name="/chat")
    assert set(answers) == {"merge", "base", "honest", "harmless"}
    assert all(answers.values())
