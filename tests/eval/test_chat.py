"""One question, many models. Real pico models; their words are w4, w5, ... and they never end by themselves."""

import threading
from pathlib import Path

import pytest

from eval.running.chat import Answered, Decoding, Prompt, Token, check_question, converse
from eval.running.models import Model, Models
from eval.running.runtime import answer_batch
from merging.checkpoint import open_checkpoint
from merging.errors import UserError
from merging.events import Notice
from tests.pico import make_family

NAMES = ("base", "helpful", "honest")


def user(words: str) -> dict[str, str]:
    return {"role": "user", "content": words}


def never() -> bool:
    return False


def words(n: int) -> str:
    return " ".join(["w5"] * n)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folders = make_family(tmp_path_factory.mktemp("family"), 2, tokenizer=True)
    held = Models("cpu")
    return {name: held.model(open_checkpoint(str(folder), Path())) for name, folder in folders.items()}


def ask(models: dict[str, Model], question: str, stopped=never, **decoding) -> list:
    turns = {name: [user(question)] for name in models}
    return list(converse(models, turns, Decoding(**{"max_new_tokens": 6, **decoding}), stopped))


def answers(events: list) -> dict[str, str]:
    return {event.model: event.text for event in events if isinstance(event, Answered)}


def test_prompts_come_first_and_every_answer_last_and_whole(models: dict[str, Model]):
    events = ask(models, "w20 w30")
    assert events[:3] == [Prompt(name, "w20 w30 ") for name in NAMES]
    greedy = {
        name: answer_batch(model.module, model.tokenizer, [[user("w20 w30")]], max_new_tokens=6)[0]
        for name, model in models.items()
    }
    assert answers(events) == greedy
    for name in NAMES:
        own = [event for event in events[3:] if event.model == name]
        assert isinstance(own[-1], Answered)
        assert own[-1].n_tokens == 6, own
        assert all(isinstance(event, Token) and greedy[name].startswith(event.text) for event in own[:-1])


def test_each_model_reads_its_own_earlier_answers(models: dict[str, Model]):
    turns = {
        name: [user("w6"), {"role": "assistant", "content": f"w{9 + i}"}, user("w7")] for i, name in enumerate(NAMES)
    }
    events = list(converse(models, turns, Decoding(max_new_tokens=1), never))
    assert events[:3] == [Prompt("base", "w6 w9 w7 "), Prompt("helpful", "w6 w10 w7 "), Prompt("honest", "w6 w11 w7 ")]


def test_sampled_answers_do_not_depend_on_who_else_is_asked(models: dict[str, Model]):
    hot = {"temperature": 2.0, "seed": 5, "max_new_tokens": 12}
    together = answers(ask(models, "w6", **hot))
    backwards = answers(ask(dict(reversed(models.items())), "w6", **hot))
    alone = {name: answers(ask({name: model}, "w6", **hot))[name] for name, model in models.items()}
    assert together == backwards == alone
    assert together != answers(ask(models, "w6", **{**hot, "seed": 6}))


def test_equal_models_answer_equally_at_any_temperature(models: dict[str, Model]):
    same = {"one": models["base"], "two": models["base"]}
    found = answers(ask(same, "w6 w8", temperature=2.0, max_new_tokens=12))
    assert found["one"] == found["two"]


def test_stop_ends_all_answers_and_keeps_what_there_is(models: dict[str, Model]):
    events = ask(models, "w6", stopped=lambda: True, max_new_tokens=50)
    assert [event.n_tokens for event in events if isinstance(event, Answered)] == [1, 1, 1]


def test_a_reader_who_leaves_early_leaves_no_thread_behind(models: dict[str, Model]):
    before = threading.active_count()
    stream = converse(models, {name: [user("w6")] for name in NAMES}, Decoding(max_new_tokens=50), never)
    while not isinstance(next(stream), Token | Answered):
        pass
    stream.close()
    assert threading.active_count() == before


def test_what_fails_in_a_thread_fails_here(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch):
    def broken(*args: object, **settings: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(models["helpful"].module, "forward", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        ask(models, "w6", max_new_tokens=50)


def test_a_conversation_too_long_for_a_model_is_said_and_the_others_answer(models: dict[str, Model]):
    turns = {"base": [user(words(64))], "helpful": [user("w6")]}
    pair = {name: models[name] for name in turns}
    events = list(converse(pair, turns, Decoding(max_new_tokens=3), never))
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert notices == ["base was not asked: it can read 64 tokens, the conversation has 64. Start a new conversation."]
    assert list(answers(events)) == ["helpful"]


def test_an_answer_that_fills_the_context_says_so(models: dict[str, Model]):
    events = ask({"base": models["base"]}, words(60), max_new_tokens=20)
    assert events[-1].n_tokens == 4
    assert events[-2] == Notice("base had to stop after 4 tokens: it can read 64 in all.")


def test_without_a_template_the_prompt_is_plain_and_said_to_be(tmp_path: Path):
    folder = make_family(tmp_path, 0, tokenizer=True)["base"]
    (folder / "chat_template.jinja").unlink()
    model = Models("cpu").model(open_checkpoint(str(folder), Path()))
    events = ask({"base": model}, "w6")
    assert events[0] == Notice("base has no chat template; it reads plain lines that begin with User: and Assistant:.")
    assert events[1] == Prompt("base", "User: w6\nAssistant:")
    assert isinstance(events[-1], Answered)


def test_a_template_that_refuses_is_a_plain_error(tmp_path: Path):
    folder = make_family(tmp_path, 0, tokenizer=True)["base"]
    (folder / "chat_template.jinja").write_text("{{ raise_exception('only one turn, please') }}")
    model = Models("cpu").model(open_checkpoint(str(folder), Path()))
    with pytest.raises(UserError, match="base: its chat template refuses the conversation: only one turn, please"):
        ask({"base": model}, "w6")


@pytest.mark.parametrize(
    ("question", "decoding", "code"),
    [
        ("w" * 4001, {}, "E_CHAT_LONG"),
        ("  \n", {}, "E_CHAT_EMPTY"),
        ("w6", {"max_new_tokens": 513}, "E_CHAT"),
        ("w6", {"max_new_tokens": 0}, "E_CHAT"),
        ("w6", {"temperature": float("nan")}, "E_CHAT"),
        ("w6", {"temperature": -0.1}, "E_CHAT"),
        ("w6", {"seed": -1}, "E_CHAT"),
    ],
)
def test_questions_beyond_the_limits_are_refused(question: str, decoding: dict, code: str):
    with pytest.raises(UserError) as caught:
        check_question({"base": [user(question)]}, Decoding(**decoding))
    assert caught.value.code == code


def test_limits_themselves_are_allowed():
    check_question({"base": [user("w" * 4000)]}, Decoding(2.0, 512, 2**63 - 1))
