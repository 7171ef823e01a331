"""A model larger than its device's memory: its last layers stay in host memory and are fetched as they are used."""

import torch
from accelerate import dispatch_model
from transformers import PreTrainedModel

from eval.running.memory import in_memory
from merging.errors import UserError


def spread(module: PreTrainedModel, device: torch.device, room: int) -> PreTrainedModel:
    """`module`, which lies in host memory, on a device where it may take `room` bytes, a fetched layer among them.

    By accelerate's hooks. `module.hf_device_map` then says "cpu" of the layers that stay. Raises UserError E_MEMORY
    where what is no layer does not fit, or the architecture names no layers.
    """
    kinds = module._no_split_modules or ()
    layers = {name: part for name, part in module.named_modules() if type(part).__name__ in kinds}
    sizes = {name: in_memory(part.parameters()) for name, part in layers.items()}
    used = in_memory(module.parameters()) - sum(sizes.values()) + max(sizes.values(), default=0)
    if not layers or used > room:
        raise UserError(
            "E_MEMORY",
            f"It needs {used / 1e9:,.1f} GB at a time on {device.type}, where {room / 1e9:,.1f} GB are free for it.",
            do="Ask it on the CPU: python app.py --device cpu.",
        )
    stay = set()
    for name, size in sizes.items():
        used += size
        if used > room:
            stay.add(name)
    tensors = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    places: dict[str, str | int | torch.device] = {}
    for name, _ in tensors:
        layer = next((layer for layer in layers if name.startswith(f"{layer}.")), name.rpartition(".")[0])
        places[layer] = "cpu" if layer in stay else device
    with torch.no_grad():
        return dispatch_model(module, places, main_device=device, force_hooks=True)  # pyright: ignore[reportReturnType]
