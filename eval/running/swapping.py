"""A model larger than its device's memory: its last layers stay in host memory and are fetched as they are used."""

from collections.abc import Mapping

import torch
from accelerate import dispatch_model
from transformers import PreTrainedModel

from eval.running.memory import in_memory
from merging.errors import UserError


def at_least(whole: int, layers: Mapping[str, int]) -> int:
    """Bytes of a model of `whole` bytes that lie on the device at a time: all that is no layer, and the largest one."""
    return whole - sum(layers.values()) + max(layers.values(), default=0)


def staying(whole: int, layers: Mapping[str, int], room: int) -> set[str]:
    """The layers, of these sizes and in order, that stay in host memory where the model may take `room` bytes."""
    used, stay = at_least(whole, layers), set[str]()
    for name, size in layers.items():
        used += size
        if used > room:
            stay.add(name)
    return stay


def spread(module: PreTrainedModel, device: torch.device, room: int) -> PreTrainedModel:
    """`module`, which lies in host memory, on a device where it may take `room` bytes, a fetched layer among them.

    By accelerate's hooks. `module.hf_device_map` then says "cpu" of the layers that stay. Raises UserError E_MEMORY
    where what is no layer does not fit, or the architecture names no layers.
    """
    kinds = module._no_split_modules or ()
    layers = {name: part for name, part in module.named_modules() if type(part).__name__ in kinds}
    sizes, whole = {name: in_memory(part.parameters()) for name, part in layers.items()}, in_memory(module.parameters())
    least = at_least(whole, sizes)
    if not layers or least > room:
        raise UserError(
            "E_MEMORY",
            f"It needs {least / 1e9:,.1f} GB at a time on {device.type}, where {room / 1e9:,.1f} GB are free for it.",
            do="Ask it on the CPU: python app.py --device cpu.",
        )
    stay = staying(whole, sizes, room)
    tensors = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    places: dict[str, str | int | torch.device] = {}
    for name, _ in tensors:
        layer = next((layer for layer in layers if name.startswith(f"{layer}.")), name.rpartition(".")[0])
        places[layer] = "cpu" if layer in stay else device
    with torch.no_grad():
        return dispatch_model(module, places, main_device=device, force_hooks=True)  # pyright: ignore[reportReturnType]
