"""Which weights of a pipeline a LoRA's updates belong to, whatever its format calls them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..adapters.ldm_names import ldm_names
from ..errors import InputError
from ..printable import printable
from ..protocols import pipeline_of
from .reading import LoraFile, updates_of
from .updates import Update

# what stands before a module's own name, and which part of the pipeline it means: the network, or a text encoder
_PREFIXES = (
    ("lora_unet_", 0),
    ("lora_transformer_", 0),
    ("lycoris_", 0),
    ("lora_te1_", 1),
    ("lora_te2_", 2),
    ("lora_te3_", 3),
    ("lora_te_", 1),
    ("base_model.model.", 0),
    ("model.diffusion_model.", 0),
    ("diffusion_model.", 0),
    ("unet.", 0),
    ("transformer.", 0),
    ("text_encoder_2.", 2),
    ("text_encoder_3.", 3),
    ("text_encoder.", 1),
)
_TEXT_PREFIX = "text_model_"  # which transformers 5 has dropped
# how wide the text is that each family reads
_READERS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}


@dataclass(frozen=True)
class Match:
    """An update, and the layer of the pipeline that it changes.

    Attributes:
        name: The module's name in the file.
        layer: The layer, which has the weight, and the bias where the update has one.
        update: The update.
        part: The part of the pipeline that the layer belongs to: 0 for the network, then its text encoders.
    """

    name: str
    layer: torch.nn.Module
    update: Update
    part: int = 0


def matched(denoiser: Any, lora: LoraFile) -> list[Match]:
    """Returns what each update of a LoRA changes in the pipeline of a denoiser.

    Raises:
        InputError: The LoRA was made for another base, with what does not fit; or the model is no pipeline.
    """
    holder = pipeline_of(denoiser, "take a LoRA", "load the model as a diffusers pipeline")
    if not denoiser.differentiable:
        raise InputError("this model runs outside of torch, and a LoRA cannot be added to it: load its torch weights")
    parts = [holder.network, *holder.text_encoders]
    layers = _layers([getattr(part, "_orig_mod", part) for part in parts])
    updates = lora.updates
    found = {name: layers.get(key_of(name)) for name in updates}
    if not all(found.values()):
        converted = _converted(holder.pipe, lora) or {}
        if converted and all(key_of(name) in layers for name in converted):
            updates = converted
            found = {name: layers.get(key_of(name)) for name in updates}
    missing = [name for name, layer in found.items() if layer is None]
    matches = [Match(name, layer, updates[name], key_of(name)[0]) for name, layer in found.items() if layer is not None]
    _require_fit(lora, matches, missing)
    return matches


def key_of(name: str) -> tuple[int, str]:
    """Returns where a module of a file belongs: the pipeline's part (0 the network, then text encoders) and its name
    with underscores for dots, as kohya's scripts write it."""
    part = 0
    for prefix, number in _PREFIXES:
        if name.startswith(prefix):
            part, name = number, name.removeprefix(prefix)
            break
    name = name.replace(".processor.", ".").replace(".", "_")
    return part, name.removeprefix(_TEXT_PREFIX) if part else name


def _layers(parts: list[torch.nn.Module]) -> dict[tuple[int, str], torch.nn.Module]:
    """Every layer with a weight, by all names that files have for it."""
    found: dict[tuple[int, str], torch.nn.Module] = {}
    for number, part in enumerate(parts):
        names: dict[str, torch.nn.Module] = {}
        for name, module in part.named_modules():
            layer = getattr(module, "base_layer", module)  # beneath a LoRA that the pipeline has already
            if isinstance(getattr(layer, "weight", None), torch.Tensor) and not name.endswith(".base_layer"):
                names[name] = layer
        for name, layer in _aliases(names, part, number):
            found.setdefault((number, name.replace(".", "_")), layer)
    return found


def _aliases(
    names: dict[str, torch.nn.Module], part: torch.nn.Module, number: int
) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, layer in names.items():
        own = name.replace(".", "_")
        yield own.removeprefix(_TEXT_PREFIX) if number else own, layer
        if name.endswith("to_out.0"):
            yield name.removesuffix(".0"), layer
    if number == 0:
        for old, new in ldm_names(part).items():
            if new in names:
                yield old, names[new]


def _converted(pipe: Any, lora: LoraFile) -> dict[str, Update] | None:
    """The updates under the names of diffusers, where it knows how this family's other formats are called."""
    from ..tensors import read_tensors
    from .reading import LARGEST

    convert = getattr(type(pipe), "lora_state_dict", None)
    if convert is None:
        return None
    _, tensors = read_tensors(lora.path, "LoRA", largest=LARGEST)
    try:
        answer = convert(tensors, return_alphas=True) if _gives_alphas(convert) else convert(tensors)
        renamed: Any = answer[0] if isinstance(answer, tuple) else answer
        scales: Any = answer[1] if isinstance(answer, tuple) and len(answer) > 1 else None
        alphas = {str(name).removesuffix(".alpha"): float(value) for name, value in (scales or {}).items()}
        return updates_of(renamed, lora.path, alphas) or None
    except (AttributeError, ImportError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return None  # no format that it knows: the file's own names are told of


def _gives_alphas(convert: Any) -> bool:
    return "return_alphas" in getattr(getattr(convert, "__func__", convert), "__code__", convert.__code__).co_varnames


def _require_fit(lora: LoraFile, matches: list[Match], missing: list[str]) -> None:
    wrong = [match for match in matches if not _fits(match)]
    if not wrong and not missing:
        return
    count = len(matches) + len(missing)
    read = _text_width([(match.name, match.update) for match in wrong])
    told = lora.metadata.get("modelspec.architecture") or lora.metadata.get("ss_base_model_version")
    base = f"; it says that it was made for {printable(told, 60)}" if told else ""
    if wrong:
        first = wrong[0]
        shapes = [" x ".join(map(str, shape)) for shape in (first.update.shape, _weight(first).shape)]
        why = f"{len(wrong)} of its {count} layers do not fit"
        own = next((_weight(match).shape[1] for match in wrong if _reads_text(match.name)), None)
        if read is not None and own is not None and read != own:
            family = f", as those of {_READERS[read]}" if read in _READERS else ""
            why += f": its attention reads text {read} wide{family}, this model's {own}"
        else:
            why += f": {printable(first.name, 90)} is {shapes[0]}, the model's {shapes[1]}"
    else:
        why = f"{len(missing)} of its {count} layers are not in the model, e.g. {printable(missing[0], 90)}"
    raise InputError(f"{lora.path} was made for another base: {why}{base}: give that base as --model")


def _fits(match: Match) -> bool:
    weight, shape = _weight(match), match.update.shape
    bias = match.update.bias
    if bias is not None and (match.layer.bias is None or match.layer.bias.shape != bias.shape):
        return False
    if not shape:  # a bias alone
        return True
    ours, theirs = (_squeezed(size) for size in (tuple(weight.shape), tuple(shape)))
    flat = len(theirs) == 2 and theirs[0] == ours[0] and theirs[1] == torch.Size(ours[1:]).numel()
    return ours == theirs or flat


def _weight(match: Match) -> torch.Tensor:
    layer: Any = match.layer
    return layer.weight


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _reads_text(name: str) -> bool:
    return name.replace(".", "_").removesuffix("_lora").endswith(("attn2_to_k", "attn2_to_v", "attn2_processor_to_k"))


def _text_width(updates: list[tuple[str, Update]]) -> int | None:
    widths = [update.shape[1] for name, update in updates if _reads_text(name) and len(update.shape) > 1]
    return widths[0] if widths else None
