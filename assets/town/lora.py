"""LoRA for Town's training loop, saved as PEFT saves it: `merging` and PEFT itself read the folder."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

RANK = 8
ALPHA = 16


class LoraLinear(nn.Module):
    """`linear(x) + ALPHA / RANK * B A x` with A random and B zero at first, as in arXiv 2106.09685."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.a = nn.Parameter(linear.weight.new_empty(RANK, linear.in_features))
        self.b = nn.Parameter(linear.weight.new_zeros(linear.out_features, RANK))
        nn.init.kaiming_uniform_(self.a, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + ALPHA / RANK * functional.linear(functional.linear(x, self.a), self.b)


def add_lora(model: PreTrainedModel, seed: int) -> None:
    """Freezes the model and puts an adapter beside every linear layer inside its blocks, in place."""
    torch.manual_seed(seed)
    model.requires_grad_(False)
    found = [(name, module) for name, module in model.base_model.named_modules() if isinstance(module, nn.Linear)]
    for name, module in found:
        model.base_model.set_submodule(name, LoraLinear(module))


def save_lora(model: PreTrainedModel, base: Path, folder: Path) -> None:
    """Writes adapter_config.json and adapter_model.safetensors; `base` is the folder of the model below."""
    adapters = {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}
    tensors = {}
    for name, module in adapters.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = module.a.detach().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = module.b.detach().contiguous()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.rsplit(".", 1)[-1] for name in adapters}),
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
