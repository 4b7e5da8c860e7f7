"""Which model answers: a digest of its weights and settings, equal on every device and host, and of nothing else."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

# their tokens tell tokenizers apart; plain words, since releases of one tokenizer differ in accents and apostrophes
TEXTS = (
    "A photograph of an astronaut riding a horse",
    "the quick brown fox jumps over 13 lazy dogs, then rests",
    "Baroque hyperrealism; unrecognizably iridescent jellyfish by the harbour",
)
# by the number of words that a text encoder knows: what its own tokenizer makes of these texts
_USUAL = {
    49408: "095fdf5a3be4039aa27976ef201a94e6055dd97e1e194ea90af6ea5e4b14ec35",  # CLIP
    32128: "be363d59d70ceb4de732e6840f2f32f03b1a34b2992822394d0b9f303e4664cb",  # T5
    1182: "fbaee46225c570132a7ce3c6ec913cbc355dea285df9877e60a7e572a281292d",  # the built-in model
}
_SIMPLE = str | int | float | complex | bytes | torch.dtype | torch.device | None


def fingerprint(weights: Iterable[Tensor], *settings: object, samples: int = 4096) -> str:
    """Returns the SHA-256 of settings and weights (up to `samples` evenly spaced values each), whatever their order.

    Hosts name, sort and shape the same weights differently; values are compared in float32 (whole numbers of quantised
    weights as they are), so that the digest is equal on every device and host. A sample of each, so that a model of
    many gigabytes takes seconds.
    """
    digest = hashlib.sha256("|".join(str(setting) for setting in settings).encode())
    for part in sorted(_digest_of(weight, samples) for weight in weights if not _is_index(weight)):
        digest.update(part)
    return digest.hexdigest()


def weights_of(modules: Iterable[torch.nn.Module]) -> Iterator[Tensor]:
    """Yields all tensors of the modules' states."""
    return (part for module in modules for tensor in module.state_dict().values() for part in inner_tensors(tensor))


def inner_tensors(value: Any) -> Iterator[Tensor]:
    """Yields the plain tensors of a tensor: itself, or what a quantised one keeps inside; of anything else none."""
    if hasattr(value, "__tensor_flatten__"):
        for name in value.__tensor_flatten__()[0]:
            yield from inner_tensors(getattr(value, name))
    elif isinstance(value, Tensor):
        yield value


def token_settings(tokenize: Callable[[str], Sequence[int]], words: int) -> list[str]:
    """Returns what a tokenizer adds to a fingerprint's settings; nothing for the one that text encoders come with.

    Args:
        tokenize: The tokens of a text, with the special ones around it, without padding.
        words: Rows of the text encoder's table of embeddings.
    """
    tokens = [[int(token) for token in tokenize(text)] for text in TEXTS]
    found = hashlib.sha256(repr(tokens).encode()).hexdigest()
    return [] if _USUAL.get(words) == found else [f"tokens {found}"]


def schedule_settings(alphas_cumprod: Tensor | None) -> list[str]:
    """Returns what a discrete noise schedule adds to a fingerprint's settings; nothing for nearly all models."""
    if alphas_cumprod is None:
        return []
    values = alphas_cumprod.detach().double().cpu()
    if any(len(values) == len(usual) and torch.allclose(values, usual, rtol=1e-3, atol=1e-6) for usual in _schedules()):
        return []
    places = torch.linspace(0, len(values) - 1, 17).long()
    return [" ".join(["schedule", *(f"{value:.3g}" for value in values[places].tolist())])]


@cache
def _schedules() -> list[Tensor]:
    """alphas_cumprod of Stable Diffusion, and of DDPM as PixArt has it."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return [(1 - b).cumprod(0) for b in (betas, torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))]


def origin(value: Any) -> str:
    """Returns the module in which a function's code or an object's class lies, whatever a wrapper says of itself."""
    function = getattr(value, "__func__", value.func if isinstance(value, partial) else value)
    names = getattr(function, "__globals__", None)
    return str(getattr(function, "__module__", "") if names is None else names.get("__name__", ""))


def describe(value: Any, depth: int = 4) -> str:
    """Describes an object so that others which act differently have other words: by class, code and settings.

    The same in every process. What it collects while it runs, e.g. in lists of tensors, is left out.
    """
    if isinstance(value, _SIMPLE):
        return repr(value)
    if isinstance(value, Tensor):
        return "".join(_digest_of(part, 64).hex() for part in inner_tensors(value))
    if depth == 0:
        return _name(value)
    if isinstance(value, list | tuple | set | frozenset | Mapping):
        items = list(value.items()) if isinstance(value, Mapping) else list(value)
        if len(items) > 64 or not all(_is_simple(item) for item in items):
            return type(value).__name__
        words = [repr(item) for item in items]
        return f"{type(value).__name__} {sorted(words) if isinstance(value, set | frozenset) else words}"
    if isinstance(value, partial):
        return " ".join(describe(part, depth - 1) for part in (value.func, value.args, dict(value.keywords)))
    if isinstance(value, MethodType):
        return f"{describe(value.__func__, depth - 1)} of {describe(value.__self__, depth - 1)}"
    if isinstance(value, FunctionType):
        held = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        inner = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values(), *held, *_globals_of(value)]
        return " ".join([_name(value), _code(value.__code__), *(describe(part, depth - 1) for part in inner)])
    if isinstance(value, type) or not hasattr(value, "__dict__"):
        return _name(value)
    parts = {name: part for name, part in vars(value).items() if not name.startswith("__") and part is not value}
    if isinstance(value, torch.nn.Module):
        parts = {name: part for name, part in parts.items() if not name.startswith("_") and name != "training"}
        parts |= dict(list(value.named_parameters(recurse=False))[:8])
    return f"{_name(value)} " + " ".join(f"{name}={describe(part, depth - 1)}" for name, part in sorted(parts.items()))


def _name(value: Any) -> str:
    own = value if isinstance(value, type | FunctionType) else type(value)
    return f"{own.__module__}.{own.__qualname__}"


def _is_simple(item: Any) -> bool:
    if isinstance(item, list | tuple):
        return len(item) <= 8 and all(_is_simple(part) for part in item)
    return isinstance(item, _SIMPLE)


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # not assigned yet
        return False


def _globals_of(function: FunctionType) -> list[Any]:
    """Numbers, texts, tensors and functions of its own module that a function reads there."""
    named = [function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__]
    own = [part for part in named if isinstance(part, FunctionType) and part.__module__ == function.__module__]
    return [part for part in named if isinstance(part, _SIMPLE | Tensor)] + own


def _code(code: CodeType) -> str:
    constants = [_code(part) if isinstance(part, CodeType) else describe(part) for part in code.co_consts]
    return hashlib.sha256(code.co_code + repr((constants, code.co_names)).encode()).hexdigest()[:16]


def _is_index(weight: Tensor) -> bool:
    """Whether it merely counts from 0, as buffers of positions do, which some hosts keep and others do not."""
    if weight.is_floating_point() or weight.is_complex() or weight.dtype == torch.bool:
        return False
    return bool((weight.detach().flatten().cpu() == torch.arange(weight.numel())).all())


def _digest_of(weight: Tensor, samples: int) -> bytes:
    values = weight.detach().flatten()
    values = values[:: max(1, values.numel() // samples)]
    if weight.is_complex():
        values = torch.view_as_real(values)
    real = values.is_floating_point()
    values = values.to(torch.float32 if real else torch.int64).cpu().contiguous()
    head = f"{weight.numel()}" if real else f"{weight.numel()} whole"
    return hashlib.sha256(head.encode() + values.view(torch.uint8).numpy().tobytes()).digest()
