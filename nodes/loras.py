"""LoRAs as ComfyUI has them: choosing one, strengths, and a model with one, by the host's own loading."""

from typing import Any

import comfy.sd
import comfy.utils
import folder_paths
from comfy_api.latest import io

from ..guard.errors import InputError

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


def patched(model: Any, clip: Any) -> int:
    """Returns how many weights of MODEL and CLIP have patches."""
    return len(model.patches) + (0 if clip is None else len(clip.patcher.patches))
