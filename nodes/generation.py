"""How an image was made, as far as the workflow tells: models, the stages of its sampling, seed and texts."""

import threading
from pathlib import Path
from typing import Any

import folder_paths

from ..guard.sidecar import UNKNOWN, Generation, file_sha256
from .graph import Graph, Prompt
from .stages import stages_of
from .tracing import joined

# input of a loader -> (role, ComfyUI's folder)
_FILES = {
    "ckpt_name": ("model", "checkpoints"),
    "unet_name": ("model", "diffusion_models"),
    "lora_name": ("lora", "loras"),
    "vae_name": ("vae", "vae"),
    "control_net_name": ("controlnet", "controlnet"),
    **{f"clip_name{number}": ("text encoder", "text_encoders") for number in ("", "1", "2", "3", "4")},
}
_DEMO = "CryptomnesiaLoadDemoModel"
_digests: dict[tuple[str, int, int], str] = {}
_lock = threading.Lock()


def generation(prompt: Prompt, node_id: str, report: dict[str, Any] | None = None) -> Generation:
    """Tells how a node's images were made, from the workflow upstream; what a run has shown beats the workflow.

    Settings, seed and guidance are those of the stage that starts from noise; those of later stages are named so.
    What a check or a finding was made with stays out: it may have models and samplers of its own.

    Args:
        prompt: The workflow as queued.
        node_id: The id of the node that saves.
        report: The report that it was given with the images, if any.

    Returns:
        Models, settings, seed and texts; UNKNOWN where only the run knows.
    """
    graph = Graph(prompt)
    stages = stages_of(graph, node_id)
    positive = joined(words for stage in stages for words in stage.positive)
    negative = joined(words for stage in stages for words in stage.negative)
    settings: dict[str, Any] = {}
    for number, stage in enumerate(stages, 1):
        seed = {} if number == 1 or stage.seed is None else {"seed": stage.seed}
        prefix = "" if number == 1 else f"stage {number} "
        settings |= {f"{prefix}{name}": value for name, value in {**stage.settings, **seed}.items()}
    text = positive.text if any(stage.positive for stage in stages) else None
    if positive.rewriters:
        shown = _original(report) if (_source(graph, node_id),) == positive.rewriters else None
        text = text if shown is None else shown
        settings |= {"rewritten prompt": UNKNOWN} if shown is None else {}
    return Generation(
        host=f"ComfyUI {_version()}",
        models=_models(graph, node_id),
        sampling=settings,
        seed=stages[0].seed if stages else None,
        prompt=text,
        negative=negative.text if any(stage.negative for stage in stages) else None,
    )


def _source(graph: Graph, node_id: str) -> str | None:
    """Returns the node that the report of a node comes from, past those that add to it."""
    source, seen = None, {node_id}
    while (link := graph.link(node_id, "report")) is not None and link[0] not in seen:
        source = node_id = link[0]
        seen.add(node_id)
    return source


def _original(report: dict[str, Any] | None) -> str | None:
    """Returns the prompt that Rewrite Prompt was given in the run, as its report says."""
    if report is None:
        return None
    return (report.get("mitigation") or {}).get("original") or report.get("prompt")


def _models(graph: Graph, node_id: str) -> list[dict[str, Any]]:
    models = []
    link = graph.link(node_id, "images")
    for number in graph.upstream(link[0]) if link else ():
        inputs = graph.inputs(number)
        if graph.kind(number) == _DEMO:
            models.append({"role": "model", "name": f"the built-in model ({graph.value(inputs.get('checkpoint'))})"})
        for key, (role, folder) in _FILES.items():
            name = graph.value(inputs.get(key))
            if isinstance(name, str):
                entry = {"role": role, "name": name, "sha256": _digest(folder, name)}
                strength = graph.value(inputs.get("strength_model", inputs.get("strength")))
                known = isinstance(strength, int | float) or strength == UNKNOWN
                models.append(entry | ({"strength": strength} if known else {}))
    return models


def _digest(folder: str, name: str) -> str | None:
    """Returns the SHA-256 of a model file, read once; None where ComfyUI does not find it."""
    path = folder_paths.get_full_path(folder, name)
    if path is None:
        return None
    stat = Path(path).stat()
    key = (path, stat.st_size, stat.st_mtime_ns)
    with _lock:
        if key not in _digests:
            _digests[key] = file_sha256(path)
        return _digests[key]


def _version() -> str:
    from comfyui_version import __version__

    return __version__
