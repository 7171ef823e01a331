"""Calibration on real models: what it measures, stops and goes on, and what a merge makes of it."""

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from eval.__main__ import main as eval_main
from eval.calibrating import kept
from eval.calibrating.calibrate import Calibrated, calibrate
from eval.running.layers import Batch, Grams, Layers, batches, measure, start_all, through
from merging.__main__ import main
from merging.calibration import open_calibration
from merging.checkpoint import open_checkpoint
from merging.engine import merged_tensors
from merging.errors import UserError
from merging.live import LiveMerge
from merging.live_events import LookReady
from merging.live_pictures import Pictures
from merging.methods.output_fit import fit_weights
from merging.plan import make_plan
from merging.recipe import load_recipe, parse_recipe
from tests.eval.test_side_path import made
from tests.forked import forked
from tests.pico import make_family

TEXT = {
    name: [
        {"expert": name, "text": " ".join(f"w{4 + (7 * i + j * j + shift) % 90}" for j in range(12 + i))}
        for i in range(3)
    ]
    for shift, name in enumerate(("one", "two", "helpful", "honest", "harmless"))
}


def recipe(folder, names, method="regmean", more="", calibration=""):
    models = "".join(f"- model: {name}\n" for name in names)
    extra = f"calibration: {calibration}\n" if calibration else ""
    text = f"merge_method: {method}\nbase_model: base\nmodels:\n{models}parameters: {{lambda: 1.0{more}}}\n{extra}"
    return parse_recipe(text, folder)


def texts(folder, names):
    path = folder / "texts.jsonl"
    path.write_text("\n".join(json.dumps(line) for name in names for line in TEXT[name]))
    return str(path)


def run(job):
    *_, last = job
    assert isinstance(last, Calibrated)
    return last


@pytest.mark.parametrize("kind", ["llama, tied", "gpt2", "phi3"])
def test_it_measures_what_a_forward_pass_reads(tmp_path, kind):
    """Every Gram matrix of an expert against hooks in one plain pass of transformers, in float64."""
    if kind == "llama, tied":
        for name, folder in make_family(tmp_path, 2, tied=True, tokenizer=True).items():
            folder.rename(tmp_path / {"base": "base", "helpful": "one", "honest": "two"}[name])
    else:
        made(tmp_path, kind)
    source = texts(tmp_path, ("one", "two"))
    run(calibrate(recipe(tmp_path, ("one", "two")), tmp_path / "cal", source, device="cpu", base=True))
    found = open_calibration(tmp_path / "cal")

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "two", dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "two")
    seen: dict[str, list[torch.Tensor]] = {}
    parts = {name: part for name, part in model.named_modules() if hasattr(part, "weight") and part.weight.dim() == 2}
    for name, part in parts.items():
        if not isinstance(part, torch.nn.Embedding):
            part.register_forward_pre_hook(lambda _, x, name=name: seen.setdefault(name, []).append(x[0][0].detach()))
    normed: dict[str, list[torch.Tensor]] = {}
    for name, part in model.named_modules():
        if name.endswith("norm") or ".ln_" in name:
            part.register_forward_hook(lambda _, x, y, name=name: normed.setdefault(name, []).append(y[0].detach()))
    ids = [tokenizer(line["text"])["input_ids"] for line in TEXT["two"]]
    for one in ids:
        model(torch.tensor([one]))
    assert {f"{name}.weight" for name in normed} == found.about.norms.keys()
    for name, rows in normed.items():
        scale, shift = model.get_submodule(name).weight, getattr(model.get_submodule(name), "bias", None)
        before = (torch.cat(rows) - (0 if shift is None else shift)) / scale
        squares = found.inputs(f"{name}.weight", found.about.experts).squares
        assert squares is not None
        torch.testing.assert_close(squares[1].double(), before.square().mean(0).detach(), atol=1e-3, rtol=1e-3)
    head = model.get_output_embeddings()
    for name, rows in seen.items():
        stacked = torch.cat(rows)
        own = (
            found.about.embedding
            if parts[name] is head and f"{name}.weight" not in found.about.matrices
            else f"{name}.weight"
        )
        gram = found.inputs(own, found.about.experts).gram
        assert gram is not None, name
        torch.testing.assert_close(gram(1).double(), stacked.T @ stacked / len(stacked), atol=1e-4, rtol=1e-4)

    read: list[torch.Tensor] = []
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float64)
    last = [name for name in seen if ".1." in name][-1]  # the last matrix of the last layer
    base.get_submodule(last).register_forward_pre_hook(lambda _, x: read.append(x[0][0].detach()))
    for one in ids:
        base(torch.tensor([one]))
    columns, x = found.inputs(f"{last}.weight", found.about.experts).base_columns, torch.cat(read)
    assert columns
    torch.testing.assert_close(columns()[1].double(), torch.stack([x.abs().mean(0), x.square().mean(0)]), atol=1e-4,
                               rtol=1e-4)  # fmt: skip
    counts = found.inputs(found.about.embedding, found.about.experts).counts
    assert counts is not None
    expected = Counter(token for one in ids for token in one)
    assert {i: round(float(c) * sum(map(len, ids))) for i, c in enumerate(counts[1]) if c} == dict(expected)


def test_products_are_those_of_the_outputs(tmp_path, pico_family):
    """M[t, s, u] = <D_s G_t, D_u>, and a transposed matrix the same."""
    made(tmp_path, "gpt2")
    source = texts(tmp_path, ("one", "two"))
    run(calibrate(recipe(tmp_path, ("one", "two")), tmp_path / "cal", source, device="cpu"))
    found = open_calibration(tmp_path / "cal")
    name = "transformer.h.1.mlp.c_fc.weight"
    assert name in found.about.transposed
    inputs = found.inputs(name, found.about.experts)
    base, one, two = (
        AutoModelForCausalLM.from_pretrained(tmp_path / n).state_dict()[name] for n in ("base", "one", "two")
    )
    assert inputs.gram
    assert inputs.products
    expected = torch.trace((one - base).T @ inputs.gram(0) @ (two - base))
    torch.testing.assert_close(inputs.products("matrix")[0, 0, 1].float(), expected, atol=1e-5, rtol=1e-3)
    assert inputs.products("model")[0, 0, 0] > inputs.products("block")[0, 0, 0] > inputs.products("matrix")[0, 0, 0]


def test_wide_matrices_go_in_strips():
    """Sums and products of a matrix wider than a strip, against float64."""
    random = torch.Generator().manual_seed(0)
    x, deltas = torch.randn(2, 40, 600, generator=random), torch.randn(3, 5, 600, generator=random)
    real = torch.arange(40) < torch.tensor([40, 25])[:, None]
    matrix = torch.nn.Linear(600, 5)
    grams = Grams({"w": matrix}, {}, columns=False)
    with torch.inference_mode(), grams.of(Batch(torch.zeros(2, 40), real, (0, 1))):
        matrix(x)
    grams.close()
    rows, d = x[real].double(), deltas.double()
    torch.testing.assert_close(grams.sums["w"].double(), rows.T @ rows, atol=1e-4, rtol=1e-5)
    outputs = rows @ d.mT  # (3, tokens, 5)
    torch.testing.assert_close(
        kept.products(deltas, grams.sums["w"]), torch.einsum("snm,unm->su", outputs, outputs), atol=0.1, rtol=1e-6
    )


def test_layers_one_by_one_are_the_model(tmp_path):
    made(tmp_path, "qwen2")
    module = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "one").eval()
    layers = Layers(module)
    state = {name: value for name, value in other.state_dict().items() if name != "lm_head.weight"}  # tied
    (batch,) = batches([[5, 6, 7, 8], [9, 10]], 0, torch.device("cpu"))
    with torch.inference_mode():
        reading = layers.start(batch, state)
        for i in range(len(layers)):
            reading = layers.step(i, reading, state)
        expected = other(batch.ids, attention_mask=batch.real.long(), output_hidden_states=True).hidden_states
        # the last hidden state of transformers is after the norm
        torch.testing.assert_close(other.model.norm(reading.hidden)[batch.real], expected[-1][batch.real])


def test_a_layer_that_is_only_measured_stops_where_its_last_matrix_has_read(tmp_path):
    made(tmp_path, "gpt_neox")  # attention and MLP beside each other
    layers = Layers(AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval())
    state = AutoModelForCausalLM.from_pretrained(tmp_path / "one").state_dict()
    read = start_all(layers, batches([[5, 6, 7, 8], [9, 10]], 0, torch.device("cpu"), tokens=4), state)
    assert len(read) == 2
    with layers.grams(0) as whole:
        through(layers, 0, read, state, whole)
    last = layers._module.gpt_neox.layers[0].mlp.dense_4h_to_h
    last.forward = None  # it cannot be called
    with layers.grams(0) as stopped:
        measure(layers, 0, read, state, stopped)
    assert stopped.sums.keys() == whole.sums.keys()
    assert stopped.squares.keys() == whole.squares.keys()
    for name, total in whole.sums.items():
        assert torch.equal(stopped.sums[name], total)
    assert stopped.tokens == whole.tokens == 6


@pytest.mark.parametrize("tied", [False, True])
def test_the_merged_stream_is_read_through_merged_layers(tmp_path, tied):
    """Layer 1's inputs are those that the finished merge's layer 0 makes, the head's those of all layers. An embedding
    that is the head too is read as merged by how often each expert looks up a row.
    """
    make_family(tmp_path, tied=tied, tokenizer=True)
    names = ("helpful", "honest", "harmless")
    source = texts(tmp_path, names)
    plain = recipe(tmp_path, names, "regmean_pp", more=", embed: tied")
    run(calibrate(plain, tmp_path / "cal", source, device="cpu"))
    found = open_calibration(tmp_path / "cal")
    plan = make_plan(replace(plain, calibration="cal"))
    merged = {name: tensor.float() for name, tensor in merged_tensors(plan)}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    if tied:
        name = "model.embed_tokens.weight"
        counts = found.inputs(name, found.about.experts).counts
        assert counts is not None
        base, *own = (open_checkpoint(who, tmp_path).read(name).float() for who in ("base", *names))
        by_use = (counts[..., None] * (torch.stack(own) - base)).sum(0) / counts.sum(0).clamp(min=1e-9)[:, None]
        merged[name] = (base + by_use).bfloat16().float()

    def check(name: str, part: str, taken: Callable[[str], bool]) -> None:
        """The Gram matrix of a part's inputs in the expert whose tensors are the merge's where they are taken."""
        mixed = AutoModelForCausalLM.from_pretrained(tmp_path / "honest", dtype=torch.float32)
        mixed.load_state_dict({key: tensor for key, tensor in merged.items() if taken(key)}, strict=False)
        seen: list[torch.Tensor] = []
        mixed.get_submodule(part).register_forward_pre_hook(lambda _, x: seen.append(x[0][0].detach()))
        for line in TEXT["honest"]:
            mixed(torch.tensor([tokenizer(line["text"])["input_ids"]]))
        rows, gram = torch.cat(seen), found.inputs(name, found.about.experts).gram
        assert gram
        torch.testing.assert_close(gram(1), rows.T @ rows / len(rows), atol=1e-4, rtol=2e-3)

    below = ("model.embed_tokens.", "model.layers.0.")
    down = "model.layers.1.mlp.down_proj"
    check(f"{down}.weight", down, lambda key: key.startswith(below))
    head = "model.embed_tokens.weight" if tied else "lm_head.weight"
    check(head, "lm_head", lambda key: key.startswith((*below, "model.layers.1.")))


def test_learned_gains_bring_the_merge_nearer_to_what_each_expert_says(family, monkeypatch):
    monkeypatch.setattr("eval.calibrating.calibrate.steps_for", lambda texts: 20)
    names = ("helpful", "honest", "harmless")
    source = texts(family, names)
    run(calibrate(recipe(family, names, "regmean_gains"), family / "cal", source, device="cpu"))
    plan = make_plan(recipe(family, names, "regmean_gains", calibration="cal"))
    found = plan.calibration
    assert found
    assert set(found.about.gains) == plan.base.tensors.keys()
    plain = replace(plan, calibration=replace(found, about=found.about.model_copy(update={"gains": ()})))
    tokenizer = AutoTokenizer.from_pretrained(family / "base")

    def apart(plan) -> float:
        """Mean over the experts of KL(expert || merge) a token of that expert's text."""
        merged = AutoModelForCausalLM.from_pretrained(family / "base", dtype=torch.float32)
        merged.load_state_dict({name: tensor.float() for name, tensor in merged_tensors(plan)})
        gaps = []
        for name in names:
            expert = AutoModelForCausalLM.from_pretrained(family / name, dtype=torch.float32)
            ids = [torch.tensor([tokenizer(line["text"])["input_ids"]]) for line in TEXT[name]]
            pairs = [[model(one).logits[0, :-1].log_softmax(-1) for model in (expert, merged)] for one in ids]
            gaps.append(torch.cat([(p.exp() * (p - q)).sum(-1) for p, q in pairs]).mean())
        return float(torch.stack(gaps).mean())

    with torch.no_grad():
        assert apart(plan) < 0.9 * apart(plain)


def _start(folder: Path, names: tuple[str, ...], source: str) -> None:
    for _ in calibrate(recipe(folder, names, "regmean_pp"), folder / "cal", source, device="cpu"):
        if len(list((folder / "cal.partial").glob("*.safetensors"))) >= 5:
            print("now")
            time.sleep(60)


def test_killed_it_goes_on_and_ends_alike(family):
    names = ("helpful", "honest", "harmless")
    source = texts(family, names)
    process, said = forked(lambda: _start(family, names, source))
    with said:
        assert said.readline() == "now\n"
    partial = family / "cal.partial"
    process.kill()
    process.join()
    assert not (family / "cal").exists()
    there = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.safetensors")}
    run(calibrate(recipe(family, names, "regmean_pp"), family / "cal", source, device="cpu"))
    assert {name: (family / "cal" / name).stat().st_mtime_ns for name in there} == there, "nothing is measured twice"
    whole = open_calibration(family / "cal")
    run(calibrate(recipe(family, names, "regmean_pp"), family / "again", source, device="cpu"))
    again = open_calibration(family / "again")
    assert (whole.about, whole.digest) == (again.about, again.digest)
    in_order = [name for name in whole.about.matrices if name != whole.about.embedding]
    assert list(whole.about.products) == in_order, "in another process too: the digest is of the file's text"


def test_what_an_older_form_measured_is_not_gone_on_with(tmp_path, monkeypatch):
    folder, found = tmp_path / "cal.partial", tmp_path / "cal.partial" / "0.safetensors"
    for form, is_kept in ((kept.FORM - 1, False), (kept.FORM, False), (kept.FORM, True)):
        monkeypatch.setattr(kept, "FORM", form)
        kept.begin(folder, ["the same run"])
        assert found.exists() == is_kept
        found.touch()


def test_texts_for_nobody_are_named(family):
    source = texts(family, ("one",))
    with pytest.raises(UserError, match="no text for helpful"):
        run(calibrate(recipe(family, ("helpful",)), family / "cal", source))
    assert not (family / "cal").exists()


@pytest.mark.parametrize(("named", "place"), [("", "recipe-calibration"), ("cal", "cal")])
def test_without_a_folder_it_goes_where_the_recipe_says_and_never_over_what_is_there(family, capsys, named, place):
    (family / "recipe.yml").write_text(recipe(family, ("helpful",), calibration=named).to_yaml())
    (family / place).mkdir()
    assert eval_main(["calibrate", str(family / "recipe.yml")]) == 2
    assert str(family / place) in capsys.readouterr().err


def test_another_family_is_refused(family):
    source = texts(family, ("helpful", "honest"))
    run(calibrate(recipe(family, ("helpful", "honest")), family / "cal", source, device="cpu"))
    make_plan(recipe(family, ("honest",), calibration="cal"))  # a part of the experts is fine
    assert make_plan(recipe(family, ("honest",), "task_arithmetic", calibration="cal")).calibration, "for its picture"
    with pytest.raises(UserError, match="measured on other models"):
        make_plan(recipe(family, ("honest", "harmless"), calibration="cal"))
    with pytest.raises(UserError, match="needs the merged stream"):
        make_plan(recipe(family, ("honest",), "regmean_pp", calibration="cal"))
    (family / "cal" / "1-0.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be found"):
        make_plan(recipe(family, ("honest",), calibration="cal"))


def test_fitted_weights_are_those_that_output_fit_finds_for_all_matrices_together(family, capsys):
    """Task arithmetic is linear in them; held against `output_fit`'s own closed form, from products kept on disk."""
    names = ("helpful", "honest", "harmless")
    run(calibrate(recipe(family, names), family / "cal", texts(family, names), device="cpu"))
    found = open_calibration(family / "cal")
    shown = [torch.tensor(table).double() for name, table in found.about.products.items() if ".layers." in name]
    products = torch.stack(shown).sum(0)
    own = products.diagonal(dim1=0, dim2=1).diagonal()  # every expert counts by what it puts out
    expected = fit_weights(products, own, ridge=0.0, positive=True)
    begun = recipe(family, names, "task_arithmetic", calibration="cal")
    experts = [replace(e, parameters=(("weight", w),)) for e, w in zip(begun.experts, (1.5, 0.5, 1.0), strict=True)]
    (family / "recipe.yml").write_text(replace(begun, experts=tuple(experts)).to_yaml())
    assert main(["fit", str(family / "recipe.yml"), "--weights", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["weights"] == pytest.approx((expected * 3 / expected.sum()).tolist(), abs=2e-3), "their sum stays"
    assert said["steps"] == 1
    assert all(after < 1 for after in said["kept"])


def test_lewis_densities_come_from_the_measurement(family, capsys):
    """Of one matrix: the expert's columns against the base's, each as long as the inputs that it met."""
    names = ("helpful", "honest")
    run(calibrate(recipe(family, names), family / "cal", texts(family, names), device="cpu", base=True))
    (family / "recipe.yml").write_text(recipe(family, names, "ties", calibration="cal").to_yaml())
    assert main(["fit", str(family / "recipe.yml"), "--densities", str(family / "dense.yml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["densities"] == [0.3, 0.8]
    plan = make_plan(load_recipe(family / "dense.yml"))
    found = {t.name: t.settings["density"] for t in plan.tensors if ".layers." in t.name and len(t.shape) == 2}
    for t in range(2):
        assert min(one[t] for one in found.values()) == 0.3
        assert max(one[t] for one in found.values()) == 0.8
    assert plan.tensor("model.norm.weight").settings["density"] == (1.0, 1.0)
    inputs, change = open_calibration(family / "cal"), {}
    for name in found:
        measured = inputs.inputs(name, [plan.experts[1].fingerprint])
        assert measured.gram
        assert measured.base_columns
        lengths = [measured.base_columns()[0, 1].sqrt(), measured.gram(0).diagonal().sqrt()]
        before, after = ((m.read(name).float() * x).norm() for m, x in zip((plan.base, plan.experts[1]), lengths,
                                                                           strict=True))  # fmt: skip
        change[name] = float((after - before).abs())
    by_kind = {name: change[name] / sum(v for n, v in change.items() if n.split(".")[-2] == name.split(".")[-2])
               for name in change}  # fmt: skip
    assert sorted(by_kind, key=by_kind.__getitem__) == sorted(found, key=lambda name: found[name][1])
    assert main(["fit", str(family / "recipe.yml"), "--densities", str(family / "dense.yml")]) == 2, "never over it"


def test_aim_shapes_any_merge_by_what_the_base_reads(family):
    names, key = ("helpful", "honest"), "model.layers.1.mlp.down_proj.weight"
    source = texts(family, names)
    asked = recipe(family, names, "ties", ", shaper: aim, aim_omega: 0.0")
    run(calibrate(asked, family / "cal", source, device="cpu"))
    plain = make_plan(recipe(family, names, "ties", calibration="cal"))
    shaped = make_plan(replace(asked, calibration="cal"))
    assert shaped.digest != replace(shaped, calibration=None).digest, "what was measured names the merge"
    columns = shaped.calibration and shaped.calibration.inputs(key, shaped.calibration.about.experts).base_columns
    assert columns
    sizes = columns()[:, 0].mean(0)
    (before, after), base = (dict(merged_tensors(plan))[key].float() for plan in (plain, shaped)), plain.base.read(key)
    expected = (before - base.float()) * (1 - sizes / sizes.max())
    torch.testing.assert_close(after - base.float(), expected, atol=2e-3, rtol=1e-2)


def test_the_base_reads_only_where_it_is_asked_for(family, capsys):
    names = ("helpful", "honest")
    run(calibrate(recipe(family, names), family / "cal", texts(family, names), device="cpu"))
    assert not list((family / "cal").glob("*-base.safetensors"))
    with pytest.raises(UserError, match=r"nothing of what the base reads.* FOLDER --base\."):
        make_plan(recipe(family, names, "ties", ", shaper: aim", calibration="cal"))
    (family / "recipe.yml").write_text(recipe(family, names, "ties", calibration="cal").to_yaml())
    assert main(["fit", str(family / "recipe.yml"), "--densities", str(family / "dense.yml")]) == 2
    assert "FOLDER --base." in capsys.readouterr().err


def test_a_fit_needs_a_measurement(family, capsys):
    (family / "recipe.yml").write_text(recipe(family, ("helpful",), "ties").to_yaml())
    assert main(["fit", str(family / "recipe.yml")]) == 2
    assert "not measured" in capsys.readouterr().err


def test_gradients_are_those_of_a_plain_backward_pass(tmp_path):
    """Of a tied head the embedding's gradient is that of both uses; measured beside the matrices' inputs."""
    for name, folder in make_family(tmp_path, 2, tied=True, tokenizer=True, dtype=torch.float32).items():
        folder.rename(tmp_path / {"base": "base", "helpful": "one", "honest": "two"}[name])
    source = texts(tmp_path, ("one", "two"))
    run(calibrate(recipe(tmp_path, ("one", "two"), "fisher"), tmp_path / "cal", source, device="cpu"))
    found = open_calibration(tmp_path / "cal")

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "two")
    squares, saliency = {}, {"two": {}, "base": {}}
    for model in saliency:
        module = AutoModelForCausalLM.from_pretrained(tmp_path / model, dtype=torch.float64)
        for line in TEXT["two"]:
            ids = torch.tensor([tokenizer(line["text"])["input_ids"]])
            module.zero_grad()
            module(ids, labels=ids).loss.backward()
            for name, weight in module.named_parameters():
                g = weight.grad
                saliency[model][name] = saliency[model].get(name, 0) + (weight * g).abs().detach() / len(TEXT["two"])
                if model == "two":
                    squares[name] = squares.get(name, 0) + g.square() / len(TEXT["two"])
    mean = torch.cat([one.flatten() for one in squares.values()]).mean()
    assert set(found.about.gradients) == squares.keys()
    for name in squares:
        inputs = found.inputs(name, found.about.experts)
        assert inputs.fisher
        assert inputs.saliency
        torch.testing.assert_close(inputs.fisher(1).double(), squares[name] / mean, rtol=1e-3, atol=1e-4)
        base, own = inputs.saliency(1)
        torch.testing.assert_close(own.double(), saliency["two"][name], rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(base.double(), saliency["base"][name], rtol=1e-3, atol=1e-7)
    assert inputs.fisher(0).double().mean() > 0
    make_plan(recipe(tmp_path, ("one", "two"), "led", calibration="cal"))
    make_plan(recipe(tmp_path, ("one", "two"), "regmean", calibration="cal"))  # the inputs are there too


@pytest.mark.parametrize(("method", "free"), [("task_arithmetic", False), ("tsv_m", True)])
def test_outputs_are_pictured_where_they_are_asked_for_or_cost_one_vector(family, method, free):
    names = ("helpful", "honest")
    run(calibrate(recipe(family, names), family / "cal", texts(family, names), device="cpu"))
    models = [open_checkpoint(name, family) for name in ("base", *names)]
    plan = make_plan(recipe(family, names, method, calibration="cal"))

    def conflicts(plan, outputs):
        events = LiveMerge(models[0], models[1:], names).move(plan, None, lambda: False, outputs=outputs)
        return next(event.look.conflicts for event in events if isinstance(event, LookReady))

    asked, other = conflicts(plan, True), conflicts(plan, False)
    assert torch.isfinite(torch.tensor(asked["output"].values)).all()
    assert set(asked) - set(other) == (set() if free else {"output"})
    unmeasured = conflicts(make_plan(recipe(family, names, method)), False)["output"]
    assert torch.tensor(unmeasured.values).isnan().all()  # nothing to wait for


def test_outputs_follow_a_weight_without_a_new_merge(family, monkeypatch):
    names = ("helpful", "honest")
    run(calibrate(recipe(family, names), family / "cal", texts(family, names), device="cpu"))
    models = [open_checkpoint(name, family) for name in ("base", *names)]
    first = make_plan(recipe(family, names, "tsv_m", calibration="cal"))
    plan = make_plan(replace(first.recipe, parameters=(("lambda", 0.5),)))

    def outputs(live, plan=plan):
        look = next(event.look for event in list(live.move(plan, None, lambda: False)) if isinstance(event, LookReady))
        return torch.tensor(look.conflicts["output"].values)

    moved, fresh = (LiveMerge(models[0], models[1:], names) for _ in range(2))
    expected = outputs(fresh)
    list(moved.move(first, None, lambda: False))
    with monkeypatch.context() as context:
        context.setattr(Pictures, "view", None)  # whoever calls it fails
        torch.testing.assert_close(outputs(moved), expected)
    assert torch.isfinite(expected).all()
    unmeasured = replace(first.recipe, calibration=None)
    assert outputs(moved, make_plan(unmeasured)).isnan().all()
    torch.testing.assert_close(outputs(moved), expected)


def test_gains_of_a_shaped_merge_are_refused_before_anything_is_measured(family):
    shaped = recipe(family, ("helpful", "honest"), "regmean_gains", ", shaper: svc")
    with pytest.raises(UserError, match="without a shaper"):
        run(calibrate(shaped, family / "cal", texts(family, ("helpful", "honest")), device="cpu"))
