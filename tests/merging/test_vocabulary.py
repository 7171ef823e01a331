"""Vocabularies that differ: what is refused, whose rows are taken, and the tokenizer that is written."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from merging.engine import merge, merged_tensors
from merging.errors import UserError
from merging.live import LiveMerge
from merging.models import open_model
from merging.plan import Plan, check, make_plan
from merging.recipe import parse_recipe
from merging.vocabulary import read_vocabulary
from tests.pico import config, weights, write_model

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
WORDS = ["<unk>", "<s>", "</s>", "a", "b", "c"]
TASK = "merge_method: task_arithmetic\nbase_model: base\ndtype: float32\nmodels:\n"


def model(folder: Path, start: float, words: list[str], *, rows: int | None = None, tied: bool = False,
          added: tuple[str, ...] = (), dtype: torch.dtype = torch.float32) -> None:  # fmt: skip
    """Row i of the embedding holds start + i everywhere, and the head its negative."""
    n = rows or len(words) + len(added)
    tensors = weights(int(start), 1, tied)
    tensors[EMBED] = (start + torch.arange(n))[:, None].repeat(1, 32)
    if not tied:
        tensors[HEAD] = -tensors[EMBED]
    settings = config(1, dtype, tied) | {"vocab_size": n}
    write_model(folder, {name: tensor.to(dtype) for name, tensor in tensors.items()}, settings)
    write_words(folder, words, added)


def write_words(folder: Path, words: list[str], added: tuple[str, ...] = ()) -> None:
    entries = [{"id": len(words) + i, "content": word, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True} for i, word in enumerate(added)]  # fmt: skip
    document = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": entries, "normalizer": None,
                "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
                "model": {"type": "WordLevel", "vocab": {w: i for i, w in enumerate(words)},
                          "unk_token": "<unk>"}}  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(document))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """base abc; more has x behind; mixed has y and x before c; less lacks c; wide has three rows of padding."""
    model(tmp_path / "base", 100, WORDS)
    model(tmp_path / "more", 200, [*WORDS, "x"])
    model(tmp_path / "mixed", 300, [*WORDS[:5], "y", "x", "c"])
    model(tmp_path / "less", 400, WORDS[:5])
    model(tmp_path / "wide", 500, WORDS, rows=9)
    model(tmp_path / "special", 600, WORDS, added=("<ad>",))
    model(tmp_path / "turned", 700, [*WORDS[:3], "c", "b", "a"])
    return tmp_path


def recipe(*names: str, more: str = "", head: str = TASK) -> str:
    entries = "".join(f"- model: {name}\n  parameters: {{weight: 1.0}}\n" for name in names)
    return head + entries + more


def planned(home: Path, text: str) -> Plan:
    return make_plan(parse_recipe(text, home))


def rows(plan: Plan) -> list[float]:
    """First column of the merged embedding; the head must be its negative."""
    merged = dict(merged_tensors(plan))
    assert torch.equal(merged[HEAD], -merged[EMBED])
    assert merged[EMBED].shape == plan.tensor(EMBED).shape
    return merged[EMBED][:, 0].tolist()


# Refused unless something is said


@pytest.mark.parametrize(
    ("name", "difference"),
    [
        ("more", "more has 1 token only there (x)"),
        ("less", "less has 1 only in the base (c)"),
        ("turned", "turned has 2 under other ids (a, c)"),
        ("mixed", "mixed has 2 tokens only there (y, x), 1 under other ids (c)"),
    ],
)
def test_vocabularies_that_differ_are_refused_with_both_ways_out(home, name, difference):
    problems = check(parse_recipe(recipe(name), home)).problems
    assert [problem.code for problem in problems] == ["E_VOCABULARY"]
    assert difference in problems[0].what
    assert "`tokenizer_source: union`" in problems[0].do
    assert "`tokenizer_source: base`" in problems[0].do


def test_padding_alone_is_no_difference_and_the_base_s_is_kept(home):
    plan = planned(home, recipe("wide"))
    assert rows(plan) == [500, 501, 502, 503, 504, 505]
    assert any("9 rows for the same 6 tokens, base 6" in notice for notice in plan.notices)


def test_a_base_with_padding_keeps_it(home):
    text = TASK.replace("base_model: base", "base_model: wide")
    plan = planned(home, recipe("base", head=text))
    assert rows(plan) == [100, 101, 102, 103, 104, 105, 506, 507, 508]


def test_equal_vocabularies_leave_the_checkpoints_alone(home):
    model(home / "twin", 900, WORDS)
    for more in ("", "tokenizer_source: union\n", "tokenizer: {source: base}\n"):
        plan = planned(home, recipe("twin", more=more))
        assert (type(plan.base).__name__, type(plan.experts[0]).__name__) == ("Checkpoint", "Checkpoint")
        assert plan.notices == ()


# Whose rows are taken (mergekit 0.1.5 gives the same, token by token)


@pytest.mark.parametrize(
    ("names", "more", "expected"),
    [
        pytest.param(["more"], "tokenizer_source: base", [200, 201, 202, 203, 204, 205], id="base drops x"),
        pytest.param(["mixed"], "tokenizer_source: base", [300, 301, 302, 303, 304, 307], id="base, another order"),
        pytest.param(["less"], "tokenizer_source: base", [400, 401, 402, 403, 404, 105], id="lacking: the base's row"),
        pytest.param(["turned"], "tokenizer_source: base", [700, 701, 702, 705, 704, 703], id="same size, other order"),
        pytest.param(["more"], "tokenizer_source: union", [200, 201, 202, 203, 204, 205, 206], id="union, one more"),
        pytest.param(["more", "mixed"], "tokenizer_source: union", [400, 401, 402, 403, 404, 407, 256, 305],
                     id="union, mean of two"),
        pytest.param(["less"], "tokenizer_source: union", [400, 401, 402, 403, 404, 105], id="union, one less"),
        pytest.param(["mixed"], "tokenizer_source: mixed", [300, 301, 302, 303, 304, 305, 306, 307], id="a model's"),
        pytest.param(["more"], "tokenizer: {source: union, pad_to_multiple_of: 8}",
                     [200, 201, 202, 203, 204, 205, 206, 102.5], id="padded with the mean of the base"),
        pytest.param(["more"], "tokenizer: {tokens: {x: {source: {kind: zero}}}}",
                     [200, 201, 202, 203, 204, 205, 206], id="zero where the base lacks it"),
        pytest.param(["less"], "tokenizer: {tokens: {c: {source: {kind: zero}}}}",
                     [400, 401, 402, 403, 404, 0], id="zero where the expert lacks it"),
        pytest.param(["more"], "tokenizer: {tokens: {a: {source: {kind: zero}, force: true}}}",
                     [200, 201, 202, 0, 204, 205, 206], id="zero, forced"),
        pytest.param(["more", "mixed"],
                     "tokenizer: {tokens: {x: {source: more, force: true}, c: {source: mixed, force: true}}}",
                     [400, 401, 402, 403, 404, 307, 206, 305], id="one model's row, forced"),
        pytest.param(["more", "mixed"], "tokenizer: {tokens: {x: {source: more}, c: {source: mixed}}}",
                     [400, 401, 402, 403, 404, 407, 306, 305], id="one model's row where lacking"),
        pytest.param(["more"], "tokenizer: {tokens: {x: {source: {kind: model_token, model: base, token_id: 4}, "
                     "force: true}}}", [200, 201, 202, 203, 204, 205, 104], id="another token's row, forced"),
        pytest.param(["less"], "tokenizer: {tokens: {c: {source: {kind: model_token, model: less, token: a}}}}",
                     [400, 401, 402, 403, 404, 403], id="another token's row where lacking"),
    ],
)  # fmt: skip
def test_rows_of_the_merge(home, names, more, expected):
    assert rows(planned(home, recipe(*names, more=more + "\n"))) == expected


def test_without_a_base_a_lacking_row_is_the_mean_of_those_who_have_it(home):
    text = "merge_method: linear\ndtype: float32\nmodels:\n"
    plan = planned(home, recipe("less", "more", "mixed", more="tokenizer_source: union\n", head=text))
    # less lacks c, x and y; more lacks y: ids of less, then c and x of more, then y of mixed
    third = [(a + b + c) / 3 for a, b, c in [(400 + i, 200 + i, 300 + i) for i in range(5)]]
    expected = [*third, (205 + 307) / 2, (206 + 306) / 2, 305]
    assert rows(plan) == pytest.approx(expected, abs=1e-4)


def test_a_lacking_row_has_delta_0_bit_for_bit_across_dtypes(home):
    model(home / "base", 100.7, WORDS, dtype=torch.float16)
    model(home / "less", 33.3, WORDS[:5], dtype=torch.bfloat16)
    plan = planned(home, recipe("less", more="tokenizer_source: base\n").replace("dtype: float32\n", ""))
    assert torch.equal(plan.experts[0].read(EMBED)[5].float(), plan.base.read(EMBED)[5].float())
    assert plan.tensor(EMBED).dtype == torch.float16
    assert torch.equal(dict(merged_tensors(plan))[EMBED][5], plan.base.read(EMBED)[5])


def test_the_report_says_whose_rows_were_taken(home):
    notices = planned(home, recipe("more", "less", more="tokenizer_source: union\n")).notices
    assert "1 token is not in every model; those that lack it get more's row." in notices
    assert "1 token is not in every model; those that lack it get base's row." in notices
    notices = planned(home, recipe("mixed", more="tokenizer_source: base\n")).notices
    assert any(
        "mixed: 2 of its tokens are left out, because the merge speaks base's vocabulary: y, x." in n for n in notices
    )


def test_a_token_of_the_base_without_a_row_finds_its_id(home):
    """Some tokenizers name a padding token whose id lies one beyond the embedding."""
    write_words(home / "base", WORDS, ("<pad>",))
    model(home / "padded", 800, WORDS, added=("<pad>",))
    plan = planned(home, recipe("padded", more="tokenizer_source: union\n"))
    assert rows(plan) == [800, 801, 802, 803, 804, 805, 806]
    assert plan.tokenizer.added == ()


def test_fingerprint_and_digest_follow_the_choice(home):
    plans = [planned(home, recipe("mixed", more=f"tokenizer_source: {word}\n")) for word in ("base", "union", "mixed")]
    assert len({plan.digest for plan in plans}) == 3
    assert len({plan.experts[0].fingerprint for plan in plans}) == 3
    again = planned(home, recipe("mixed", more="tokenizer_source: union\n"))
    assert again.digest == plans[1].digest


# What is written


def exported(home: Path, text: str) -> Path:
    list(merge(planned(home, text), home / "out"))
    return home / "out"


def test_a_union_speaks_all_tokens_and_keeps_the_base_s_ids(home):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = exported(home, recipe("special", "mixed", more="tokenizer_source: union\n"))
    tokenizer = AutoTokenizer.from_pretrained(out)
    old = AutoTokenizer.from_pretrained(home / "base")
    assert old.get_vocab().items() <= tokenizer.get_vocab().items()
    assert tokenizer.encode("a x y <ad> b", add_special_tokens=False) == [3, 8, 7, 6, 4]
    assert "<ad>" not in tokenizer.decode([3, 6], skip_special_tokens=True)
    assert json.loads((out / "config.json").read_text())["vocab_size"] == 9
    loaded, report = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    assert loaded.get_input_embeddings().weight.shape == (9, 32)


def test_another_model_s_tokenizer_brings_its_end_of_text(home):
    path = home / "mixed" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": 5}))
    out = exported(home, recipe("mixed", more="tokenizer_source: mixed\n"))
    written = json.loads((out / "config.json").read_text())
    assert (written["vocab_size"], written["eos_token_id"]) == (8, 5)
    assert (out / "tokenizer.json").read_bytes() == (home / "mixed" / "tokenizer.json").read_bytes()


def test_a_union_needs_a_tokenizer_json_to_append_to(home):
    (home / "base" / "tokenizer.json").unlink()
    (home / "base" / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(WORDS)}))
    (home / "base" / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(UserError, match=r"has no tokenizer\.json"):
        exported(home, recipe("more", more="tokenizer_source: union\n"))
    assert not (home / "out").exists()


# The page


def test_the_live_merge_of_a_union_is_the_export(home):
    names = ("more", "mixed")
    base, *experts = (open_model(name, home) for name in ("base", *names))
    live = LiveMerge(base, experts, names)
    for word in ("union", "base", "mixed"):
        plan = planned(home, recipe(*names, more=f"tokenizer_source: {word}\n"))
        list(live.move(plan, None, lambda: False))
        state, expected = live.state(plan), dict(merged_tensors(plan))
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


def test_chat_with_a_union_knows_its_tokens(home):
    from eval.running.models import Models
    from eval.running.sources import Merged

    plan = planned(home, recipe("special", more="tokenizer_source: union\n"))
    chat = Models("cpu").model(Merged(plan, lambda: dict(merged_tensors(plan))))
    assert chat.tokenizer.encode("<ad>", add_special_tokens=False) == [6]
    assert chat.module.get_input_embeddings().weight[6, 0] == 606


# Recipes


@pytest.mark.parametrize(
    "more",
    [
        "tokenizer_source: union\n",
        "tokenizer: {source: base, pad_to_multiple_of: 64}\n",
        "tokenizer: {source: more, tokens: {x: {source: more, force: true}, a: {source: {kind: zero}}, "
        "b: {source: {kind: model_token, model: base, token: c}}, "
        "c: {source: {kind: model_token, model: base, token_id: 0}}}}\n",
    ],
)
def test_a_choice_survives_the_round_trip(home, more):
    first = parse_recipe(recipe("more", more=more), home)
    assert parse_recipe(first.to_yaml(), home) == first
    assert first.vocabulary is not None


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("tokenizer: union", "must be a mapping"),
        ("tokenizer: {sauce: union}", "no such key: 'sauce'. Did you mean `source`?"),
        ("tokenizer: {source: [base]}", "is not base, union or a model"),
        ("tokenizer: {source: nowhere}", "nowhere"),
        ("tokenizer: {pad_to_multiple_of: 0}", "0 is not a whole number from 1"),
        ("tokenizer: {pad_to_multiple_of: true}", "True is not a whole number"),
        ("tokenizer: {pad_to_multiple_of: 1.5}", "1.5 is not a whole number"),
        ("tokenizer: {tokens: [x]}", "must be a mapping from tokens"),
        ("tokenizer: {tokens: {x: more}}", "takes `source:` and `force:`"),
        ("tokenizer: {tokens: {x: {source: {kind: one}}}}", "known `kind:`"),
        ("tokenizer: {tokens: {x: {source: {kind: [zero]}}}}", "known `kind:`"),
        ("tokenizer: {tokens: {x: {source: {kind: zero, token: a}}}}", "known `kind:`"),
        ("tokenizer: {tokens: {x: {source: {kind: model_token, model: base}}}}", "either its `token:`"),
        ("tokenizer: {tokens: {x: {source: {kind: model_token, model: base, token_id: -1}}}}", "either its `token:`"),
        ("tokenizer: {tokens: {x: {source: more, force: maybe}}}", "force is 'maybe'"),
        ("tokenizer: {tokens: {1: {source: more}}}", "a token is text"),
        ("tokenizer: {tokens: {nope: {source: more}}}", "the merge's vocabulary has no such token"),
        ("tokenizer: {tokens: {x: {source: base}}}", "base has no token 'x'"),
        ("tokenizer: {tokens: {x: {source: {kind: model_token, model: base, token_id: 77}}}}", "has no token 77"),
        ("tokenizer_source: union\ntokenizer: {source: base}", "one of them counts"),
    ],
)
def test_a_wrong_choice_is_one_plain_message(home, more, told):
    with pytest.raises(UserError) as error:
        planned(home, recipe("more", more=more + "\n"))
    assert told in str(error.value)


# Tokenizer files


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("{", "not JSON"),
        ("[]", "no vocabulary"),
        ('{"model": {"vocab": 3}}', "no vocabulary"),
        ('{"model": {"vocab": {"a": -1}}}', "the id of token 'a' is -1"),
        ('{"model": {"vocab": {"a": "1"}}}', "the id of token 'a' is '1'"),
        ('{"model": {"vocab": {"a": 1, "b": 1}}}', "'a' and 'b' have the same id 1"),
        ('{"model": {"vocab": {}}, "added_tokens": [3]}', "added_tokens are not"),
        ('{"model": {"vocab": {}}, "added_tokens": [{"id": 1}]}', "the id of token None"),
    ],
)
def test_a_damaged_tokenizer_is_one_plain_message(home, document, told):
    (home / "more" / "tokenizer.json").write_text(document)
    problems = check(parse_recipe(recipe("more"), home)).problems
    assert problems[0].code == "E_TOKENIZER"
    assert told in problems[0].what
    assert "more" in problems[0].where


def test_too_many_tokens_are_refused(home, monkeypatch):
    monkeypatch.setattr("merging.vocabulary.MAX_TOKENS", 1000)
    words = {f"w{i}": i for i in range(1001)}
    (home / "more" / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words}}))
    with pytest.raises(UserError, match="1,001 tokens, more than the 1,000"):
        planned(home, recipe("more"))


def test_tokens_are_read_from_every_kind_of_file(home):
    folder = home / "more"
    (folder / "tokenizer.json").write_text(
        json.dumps({"model": {"vocab": [["a", -1.0], ["b", -2.0]]}, "added_tokens": [{"id": 2, "content": "<ad>"}]})
    )
    found = read_vocabulary(open_model("more", home))
    assert found is not None
    assert dict(found.ids) == {"a": 0, "b": 1, "<ad>": 2}
    (folder / "tokenizer.json").unlink()
    assert read_vocabulary(open_model("more", home)) is None
    (folder / "vocab.json").write_text('{"a": 1, "b": 0}')
    (folder / "added_tokens.json").write_text('{"<ad>": 2}')
    found = read_vocabulary(open_model("more", home))
    assert found is not None
    assert dict(found.ids) == {"a": 1, "b": 0, "<ad>": 2}


def test_rows_that_no_file_explains_are_refused(home):
    (home / "more" / "tokenizer.json").unlink()
    (home / "more" / "tokenizer.model").write_bytes(b"sentencepiece")
    problems = check(parse_recipe(recipe("more", more="tokenizer_source: union\n"), home)).problems
    assert problems[0].code == "E_VOCABULARY"
    assert "no tokenizer.json says which token" in problems[0].what


def test_an_expert_without_tokenizer_and_with_as_many_rows_speaks_as_the_base(home):
    model(home / "twin", 900, WORDS)
    (home / "twin" / "tokenizer.json").unlink()
    assert rows(planned(home, recipe("twin"))) == [900, 901, 902, 903, 904, 905]


def test_a_vocabulary_that_differs_hides_no_other_problem(home):
    tensors = load_file(home / "more" / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    write_model(home / "more", tensors, json.loads((home / "more" / "config.json").read_text()))
    codes = [problem.code for problem in check(parse_recipe(recipe("more"), home)).problems]
    assert codes == ["E_VOCABULARY", "E_TENSOR_MISSING"]
