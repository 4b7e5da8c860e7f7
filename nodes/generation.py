"""How an image was made, as far as the workflow tells: models, sampler settings, seed and texts."""

import threading
from pathlib import Path
from typing import Any

import folder_paths

from ..guard.sidecar import Generation, file_sha256
from .graph import Prompt, find_text, upstream

# input of a loader -> (role, ComfyUI's folder)
_FILES = {
    "ckpt_name": ("model", "checkpoints"),
    "unet_name": ("model", "diffusion_models"),
    "lora_name": ("lora", "loras"),
    "vae_name": ("vae", "vae"),
    "control_net_name": ("controlnet", "controlnet"),
    **{f"clip_name{number}": ("text encoder", "text_encoders") for number in ("", "1", "2", "3", "4")},
}
_SETTINGS = (
    "steps",
    "cfg",
    "sampler_name",
    "scheduler",
    "denoise",
    "start_at_step",
    "end_at_step",
    "add_noise",
    "shift",
)
_SEEDS = ("seed", "noise_seed")
_DEMO, _SEARCH = "CryptomnesiaLoadDemoModel", "CryptomnesiaGuardedNoise"
_digests: dict[tuple[str, int, int], str] = {}
_lock = threading.Lock()


def generation(prompt: Prompt, node_id: str) -> Generation:
    """From the workflow upstream of a node's images; where two nodes tell the same, the nearer one counts.

    What a check or a finding was made with stays out: it may have models and samplers of its own.
    """
    source = str((prompt.get(node_id, {}).get("inputs", {}).get("images") or [None])[0])
    nodes = [(kind, inputs) for _, kind, inputs in upstream(prompt, source)]
    return Generation(
        host=f"ComfyUI {_version()}",
        models=_models(nodes),
        sampling={name: value for name, value in _told(prompt, nodes, _SETTINGS).items() if value is not None},
        seed=next(iter(_told(prompt, nodes, _SEEDS).values()), None),
        prompt=_text(prompt, source, ("positive", "conditioning")),
        negative=_text(prompt, source, ("negative",)),
    )


def _models(nodes: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    found = []
    for kind, inputs in nodes:
        if kind == _DEMO:
            found.append({"role": "model", "name": f"the built-in model ({inputs.get('checkpoint')})"})
        for key, (role, folder) in _FILES.items():
            if isinstance(inputs.get(key), str):
                entry = {"role": role, "name": inputs[key], "sha256": _digest(folder, inputs[key])}
                strength = inputs.get("strength_model", inputs.get("strength"))
                found.append(entry | ({"strength": strength} if isinstance(strength, int | float) else {}))
    return found


def _digest(folder: str, name: str) -> str | None:
    """SHA-256 of a model file, read once; None where ComfyUI does not find it."""
    place = folder_paths.get_full_path(folder, name)
    if place is None:
        return None
    stat = Path(place).stat()
    key = (place, stat.st_size, stat.st_mtime_ns)
    with _lock:
        if key not in _digests:
            _digests[key] = file_sha256(place)
        return _digests[key]


def _told(prompt: Prompt, nodes: list[tuple[str, dict[str, Any]]], names: tuple[str, ...]) -> dict[str, Any]:
    """By name what the nearest node says that has such an input; None where only the running workflow knows."""
    found: dict[str, Any] = {}
    for kind, inputs in nodes:
        for name in names:
            if name in inputs and name not in found:
                # the seed search tries several and names the first
                found[name] = None if kind == _SEARCH else _literal(prompt, inputs[name])
    return found


def _literal(prompt: Prompt, value: Any) -> Any:
    """What an input is set to, by hand or by a primitive node."""
    if isinstance(value, list) and value:
        source = prompt.get(str(value[0]), {})
        primitive = source.get("class_type", "").startswith("Primitive")
        value = source.get("inputs", {}).get("value") if primitive else None
    return value if isinstance(value, str | int | float) else None


def _text(prompt: Prompt, node_id: str, names: tuple[str, ...]) -> str | None:
    """The text behind the nearest node that has such an input."""
    for other, _, inputs in upstream(prompt, node_id):
        for name in names:
            if name in inputs:
                return find_text(prompt, other, name)
    return None


def _version() -> str:
    from comfyui_version import __version__

    return __version__
