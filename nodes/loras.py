"""LoRAs as ComfyUI has them: choosing one, strengths, and a model with one, by the host's own loading."""

from typing import Any

import comfy.lora
import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io

from ..guard.errors import InputError
from ..guard.lora import LoraFile
from ..guard.printable import printable

NONE = "none"
MOST = 6  # strengths


def choice(name: str) -> Any:
    """Returns an input for a LoRA of ComfyUI's folder, or none."""
    return io.Combo.Input(
        name, options=[NONE, *folder_paths.get_filename_list("loras")], tooltip="A LoRA to try, or none."
    )


def strengths_of(text: str) -> list[float]:
    """Returns the strengths. Raises InputError for what are no numbers, or too many."""
    try:
        found = [float(part) for part in text.replace(";", ",").split(",") if part.strip()]
    except ValueError:
        found = []
    if not 0 < len(found) <= MOST or not all(abs(value) <= 20 for value in found):
        raise InputError(f"strengths are one to six numbers with commas between them, e.g. 0.5, 1.0, not {text!r}")
    return list(dict.fromkeys(found))


def with_lora(model: Any, clip: Any, name: str, strength: float) -> tuple[Any, Any]:
    """Returns MODEL and CLIP with a LoRA of ComfyUI's folder at a strength; those that were given stay as they are."""
    path = folder_paths.get_full_path_or_raise("loras", name)
    weights = comfy.utils.load_torch_file(path, safe_load=True)
    return comfy.sd.load_lora_for_models(model, clip, weights, strength, strength)


def fitting(model: Any, clip: Any, file: LoraFile) -> int:
    """Returns how many layers of a LoRA ComfyUI finds in the model, with weights of their size; it passes over others.

    Raises InputError where there is none, as of a LoRA that was made for another base.
    """
    weights = {}
    for key, name in comfy.lora.model_lora_keys_unet(model.model, {}).items():
        weights[key] = (model.model, name)
    if clip is not None:
        for key, name in comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {}).items():
            weights[key] = (clip.cond_stage_model, name)
    count, first = 0, ""
    for module, update in file.updates.items():
        if module not in weights:
            first = first or f"{module} is not in it"
            continue
        holder, name = weights[module]
        weight = comfy.utils.get_attr(holder, name if isinstance(name, str) else name[0])
        if not update.shape or torch.Size(update.shape).numel() == weight.numel():
            count += 1
        else:
            sizes = [" x ".join(map(str, shape)) for shape in (update.shape, weight.shape)]
            first = first or f"{module} is {sizes[0]}, the model's {sizes[1]}"
    if not count:
        raise InputError(f"{file.path.name} was made for another base ({printable(first, 200)}): load that one")
    return count
