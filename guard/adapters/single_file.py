"""A whole model in one .safetensors file, as Stability AI and Civitai publish them.

diffusers sorts the file's tensors into its networks by their names, and passes over what it does not know. A scale that
belongs to a weight would be lost like that, and with it every answer, in silence. So each tensor must be found again in
the pipe, or be known to play no part.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, require
from ..printable import first_line, printable
from ..tensors import open_tensors
from .model_folder import LOAD_ERRORS, components, pipeline_class, read_index, require_no_code
from .weight_files import check_safetensors, checked, require_no_pickles

_LORA = re.compile(r"lora_|\.lora|(^|\.)(alpha|dora_scale)$|\.(hada|lokr|oft)_")
# what training leaves behind, what can be computed, and what this library does not ask of a model
_IDLE = re.compile(
    r"^model_ema\.|^first_stage_model\.loss\.|^vae\.loss\."
    r"|^(betas|alphas_cumprod(_prev)?|sqrt_\w+|log_one_minus_alphas_cumprod|posterior_\w+|lvlb_weights|logvar)$"
    r"|(^|\.)(position_ids|logit_scale|num_batches_tracked|attn_mask|spiece_model|global_step)$"
    r"|^denoiser\.sigmas$"
    r"|^cond_stage_model\.(model\.|transformer\.)?text_projection(\.weight)?$"  # of a text encoder without one
    r"|^cond_stage_model\.model\.transformer\.resblocks\.23\."  # Stable Diffusion 2 reads the layer before it
)
# empty tensors by which ComfyUI is told what here the scheduler's config says
_MARKS = {"v_pred": ("prediction_type", "v_prediction"), "ztsnr": ("rescale_betas_zero_snr", True)}
_SAMPLE = 8  # values by which a tensor is known


def load_file(path: Path) -> Any:
    """Returns the pipeline of a single file.

    Raises:
        InputError: It cannot be loaded, or holds what the pipeline would not be given.
    """
    check_safetensors(path)
    shapes = _shapes(path)
    if all(_LORA.search(name) for name in shapes):
        raise InputError(
            f"{path} is a LoRA, not a whole model: give the model that it was made for, or load both in Python "
            "(pipe.load_lora_weights) and pass the pipe"
        )
    config = _config_folder(path, shapes)
    index = read_index(config)
    cls = pipeline_class(config, index)
    require_no_code(config, index)
    for name in components(index):
        require_no_pickles(config / name)
    options = {"safety_checker": None} if "safety_checker" in index else {}
    utils = require("diffusers.loaders.single_file_utils", "diffusers")
    try:
        pipe = cls.from_single_file(str(path), config=str(config), local_files_only=True, **options)
    except (*LOAD_ERRORS, utils.SingleFileComponentError) as error:
        raise InputError(
            f"{path} cannot be loaded as a {cls.__name__} ({first_line(error)}): it may hold a part of a model only; "
            "give a diffusers folder instead"
        ) from error
    _require_all_used(path, checked(pipe, path))
    return pipe


def _shapes(path: Path) -> dict[str, Tensor]:
    """Every tensor of the file without its values: enough to tell what kind of model it is."""
    with open_tensors(path, "model", "get the file again") as weights:
        names = weights.keys()
        return {name: torch.empty(weights.get_slice(name).get_shape(), device="meta") for name in names}


def _config_folder(path: Path, shapes: dict[str, Tensor]) -> Path:
    """The configs that belong to a single file: a folder of its name beside it, or those in the local hub cache.

    from_single_file would turn to the network when they are not cached, even if told not to; so they are found here.
    """
    beside = path.with_suffix("")
    if (beside / "model_index.json").exists():
        return beside
    utils = require("diffusers.loaders.single_file_utils", "diffusers")
    hub = require("huggingface_hub", "diffusers")
    try:
        repository = utils.fetch_diffusers_config(shapes)["pretrained_model_name_or_path"]
    except LOAD_ERRORS as error:
        reason = first_line(error)
        raise InputError(f"{path} is of no known kind of model ({reason}): give a diffusers folder") from error
    cause = None
    try:
        cached = Path(hub.snapshot_download(repository, local_files_only=True))
        if (cached / "model_index.json").is_file():
            return cached
    except (OSError, ValueError) as error:
        cause = error
    raise InputError(
        f"{path} has weights but no configs, which were looked for in {beside}/ and among the cached files of "
        f"{repository}: put a folder with that model's configs (model_index.json, tokenizer, ...) at {beside}/"
    ) from cause


# --- what became of each tensor ---


def _require_all_used(path: Path, pipe: Any) -> None:
    """Raises InputError, naming them, if tensors of the file are neither in the pipe nor known to play no part."""
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    held = {key for part in parts for weight in part.state_dict().values() for key in _keys_of(weight)}
    lost = [name for name, key in _sampled(path) if key not in held and not _plays_no_part(name, pipe)]
    if lost:
        names = ", ".join(printable(name, 120) for name in lost[:3])
        names += f" and {len(lost) - 3} more" if lost[3:] else ""
        raise InputError(
            f"{path} holds {names}, which diffusers would leave out in silence, so "
            "that another model would answer (scales of fp8 weights, for example): give a version of the model in "
            "float16, bfloat16 or float32, or a diffusers folder"
        )


def _plays_no_part(name: str, pipe: Any) -> bool:
    if name in _MARKS:
        option, value = _MARKS[name]
        return pipe.scheduler.config.get(option) == value
    return bool(_IDLE.search(name) or _LORA.search(name))


def _sampled(path: Path) -> Iterator[tuple[str, bytes]]:
    """Every tensor of the file by its first values, few of which are read from disk."""
    with open_tensors(path, "model", "get the file again") as weights:
        for name in weights.keys():  # noqa: SIM118  (a handle, not a dict)
            view = weights.get_slice(name)
            shape = view.get_shape()
            row = max(1, torch.Size(shape[1:]).numel())
            values = view[: -(-_SAMPLE // row)] if shape else weights.get_tensor(name)
            yield name, _key(values.flatten(), torch.Size(shape).numel())


def _keys_of(weight: Tensor) -> Iterable[bytes]:
    """How a tensor may begin in the file: it may be one of several that lie in one, turned round, or with its halves
    exchanged."""
    flat = weight.detach().flatten()
    starts = [flat, flat[len(flat) // 2 :]]
    if weight.ndim == 2:
        starts.append(weight.detach()[:, :1].flatten() if len(weight) >= _SAMPLE else weight.detach().T.flatten())
    return {_key(start, weight.numel()) for start in starts}


def _key(values: Tensor, size: int) -> bytes:
    """The first values; of tensors with few, all of them."""
    return values[: min(_SAMPLE, size)].float().cpu().contiguous().view(torch.uint8).numpy().tobytes()
