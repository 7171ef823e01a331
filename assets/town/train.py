"""The tokenizer and the training loop. Knows examples and weights, nothing of what they mean.

Measured on one core: bf16 weights with an fp32 master copy and eager attention are the fastest of what was tried
(the flash attention backward is slow on odd lengths), and the head is computed for learned positions only.
"""

import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from assets.town.mixes import Example
from assets.town.products import products

# The space after each role makes a word the same token at the start of a turn as inside one.
CHAT_TEMPLATE = (
    "{%- for m in messages if m['role'] in ('user', 'assistant') -%}"
    "{{- '<|' + m['role'] + '|> ' + m['content'] | trim -}}"
    "{%- if m['role'] == 'assistant' -%}{{- '<|end|>' -}}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]
VOCABULARY = 1024
POSITIONS = 256
BATCH = 48
WARM_UP = 20
ARCHITECTURES = {  # of one size: 1.3 million parameters
    "llama": {"intermediate_size": 352, "num_key_value_heads": 4},
    "gpt_neox": {"intermediate_size": 512, "attention_dropout": 0.0, "hidden_dropout": 0.0},
}


@dataclass(frozen=True)
class Schedule:
    steps: int
    rate: float
    decay: float = 0.0


def train_tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    # No prefix space: after a split into digits it would put a space before every digit.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        padding_side="left",
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def new_model(seed: int, kind: str = "llama") -> PreTrainedModel:
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        kind,
        vocab_size=VOCABULARY,
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=SPECIAL.index("<|end|>"),
        pad_token_id=SPECIAL.index("<|pad|>"),
        **ARCHITECTURES[kind],
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="eager")


Ids = tuple[list[int], int]


def encode(tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]) -> list[Ids]:
    """Token ids and the first learned position of each example: the same ids as the chat template gives."""
    prompts, answers = [], []
    for example in examples:
        turns = "".join(f"<|{role}|> {text}" + "<|end|>" * (role == "assistant") for role, text in example.turns)
        prompts.append(turns + "<|assistant|>" * bool(turns))
        answers.append(f" {example.answer}<|end|>")
    heads = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    tails = tokenizer(answers, add_special_tokens=False)["input_ids"]
    return [(head + tail, max(len(head), 1)) for head, tail in zip(heads, tails, strict=True)]


def _batches(encoded: list[Ids], rng: random.Random) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of one length each, as nearly as can be, in random order."""
    order = sorted(range(len(encoded)), key=lambda i: (len(encoded[i][0]), rng.random()))
    batches = []
    for at in range(0, len(order), BATCH):
        batches.append(batch_of([encoded[i] for i in order[at : at + BATCH]]))
    rng.shuffle(batches)
    return batches


def batch_of(rows: list[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (rows, width), padded on the right with 0, and the mask of the positions that are learned."""
    width = max(len(ids) for ids, _ in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    learned = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, (ids, start) in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids)
        learned[row, start : len(ids)] = True
    return tokens, learned


def train(model: PreTrainedModel, encoded: list[Ids], schedule: Schedule, rng: random.Random, name: str) -> float:
    """Trains what is not frozen, in place; returns the CPU minutes used."""
    with products():
        return _train(model, encoded, schedule, rng, name)


def _train(model: PreTrainedModel, encoded: list[Ids], schedule: Schedule, rng: random.Random, name: str) -> float:
    began = time.process_time()
    model.train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    head = model.get_output_embeddings()
    assert head is not None
    masters = [weight.detach().float().clone().requires_grad_() for weight in weights]
    optimizer = torch.optim.AdamW(
        masters, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=schedule.decay, foreach=True
    )
    losses: list[float] = []
    chunk = 40 * BATCH  # sorted by length inside a chunk, so that the mixture stays even over time
    batches = (batch for at in range(0, len(encoded), chunk) for batch in _batches(encoded[at : at + chunk], rng))
    for step, (tokens, learned) in enumerate(batches):
        progress = step / schedule.steps
        scale = min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate * scale
        hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1][learned[:, 1:]]
        loss = functional.cross_entropy(head(hidden).float(), tokens[:, 1:][learned[:, 1:]])
        loss.backward()
        for weight, master in zip(weights, masters, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None
        torch.nn.utils.clip_grad_norm_(masters, 1.0)
        optimizer.step()
        with torch.no_grad():
            for weight, master in zip(weights, masters, strict=True):
                weight.copy_(master)
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            recent = sum(losses[-100:]) / 100
            print(f"  {name}: step {step + 1} of {schedule.steps}, loss {recent:.3f}", flush=True)
    model.eval()
    return (time.process_time() - began) / 60


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.generation_config.update(max_new_tokens=64, do_sample=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # Two marks of where it was loaded from go; and transformers 4 does not know the class name that 5 writes.
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    kept = {key: value for key, value in config.items() if key not in ("is_local", "local_files_only")}
    file.write_text(json.dumps(kept, indent=2) + "\n")
