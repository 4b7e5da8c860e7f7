"""LoRA files, whichever trainer wrote them: diffusers, PEFT, kohya, LyCORIS; and what is wrong with broken ones."""

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..files import size_text
from ..printable import printable
from ..strict_json import read_json
from ..tensors import open_tensors
from .formats import PARTS, UNREAD, Name, parsed
from .updates import Dense, Hadamard, Kronecker, LowRank, Update

LARGEST = 8 << 30  # bytes of a file; the largest LoRAs have two or three
MOST_TENSORS = 100_000
CONFIG, CONFIG_LIMIT = "adapter_config.json", 1 << 20  # PEFT keeps alpha there
PICKLES = (".pt", ".ckpt", ".bin", ".pth", ".pkl", ".pickle")
_REMEDY = "get the file again"
Group = dict[str, Tensor]


@dataclass(frozen=True)
class LoraFile:
    """A LoRA, as its file has it.

    Attributes:
        path: The file.
        format: What wrote it: "diffusers", "PEFT", "kohya", "LyCORIS" or "kohya, DoRA", for people to read.
        metadata: The file's own header: texts by name; empty where it has none.
        updates: What is added to each weight, by the module's name as the file has it, e.g.
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q" or "lora_unet_input_blocks_1_1_proj_in".
        notes: What else a user should know, e.g. of tensors that take no part.
    """

    path: Path
    format: str
    metadata: dict[str, str]
    updates: dict[str, Update]
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The file's name without its ending, for messages and pages."""
        return printable(self.path.stem, 80)

    @property
    def ranks(self) -> list[int]:
        """The ranks that occur, each once, in order."""
        return sorted({update.rank for update in self.updates.values() if update.rank is not None})

    def prompts(self, most: int | None = None) -> list[Any]:
        """Returns the prompts that the file's metadata tell of, most telling first; see `lora.prompts`."""
        from .prompts import MOST, from_metadata

        return from_metadata(self.metadata, MOST if most is None else most)


def read_lora(path: str | Path) -> LoraFile:
    """Reads a LoRA; no pickle is opened and nothing is run.

    Args:
        path: A .safetensors file, or a folder with one of them, as PEFT and diffusers save it.

    Raises:
        InputError: There is none, it is a pickle, no LoRA, too large, or broken; with the reason.
        MissingPackage: safetensors is not installed.
    """
    file = _file_of(Path(path).expanduser())
    with open_tensors(file, "LoRA", _REMEDY) as tensors:
        size = file.stat().st_size
        names = list(tensors.keys())
        if size > LARGEST or len(names) > MOST_TENSORS:
            raise InputError(
                f"{file} has {size_text(size)} and {len(names)} tensors, more than any LoRA (at most "
                f"{size_text(LARGEST)}, {MOST_TENSORS}): it is not read"
            )
        metadata = {str(key): str(value) for key, value in (tensors.metadata() or {}).items()}
        known = {name: parsed(name) for name in names}
        _require_lora(file, known)
        groups: dict[str, Group] = defaultdict(dict)
        for name, found in known.items():
            if found is not None:
                groups[found.module][found.part] = _finite(tensors.get_tensor(name), name, file)
    alphas, config = _config_of(file, metadata)
    updates = {module: _update(module, group, file, alphas(module)) for module, group in groups.items()}
    if not updates:
        raise InputError(f"{file} holds no updates: get the file again")
    unread = [name for name, found in known.items() if found is None]
    notes = [f"{len(unread)} tensors take no part ({printable(unread[0], 60)})"] if unread else []
    return LoraFile(file, _format(known, config), metadata, updates, notes)


def updates_of(tensors: dict[str, Tensor], path: Path, alphas: dict[str, float] | None = None) -> dict[str, Update]:
    """Returns the updates that tensors of a LoRA amount to, by module.

    Args:
        tensors: By the names of any known format.
        path: The file they come from, for messages.
        alphas: Alphas by module, where they do not lie among the tensors.

    Raises:
        InputError: As `read_lora`, of its tensors.
    """
    groups: dict[str, Group] = defaultdict(dict)
    for name, tensor in tensors.items():
        found = parsed(name)
        if found is not None:
            groups[found.module][found.part] = _finite(tensor, name, path)
    return {module: _update(module, group, path, (alphas or {}).get(module)) for module, group in groups.items()}


def _file_of(path: Path) -> Path:
    if path.suffix.lower() in PICKLES:
        raise InputError(f"{path} is a pickle, which may run code: get the LoRA as .safetensors, or convert it")
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.safetensors"))
    if len(found) != 1:
        pickles = [file for file in path.iterdir() if file.suffix.lower() in PICKLES]
        why = f"{len(found)} .safetensors files" if found or not pickles else f"only pickles ({pickles[0].name})"
        raise InputError(f"the folder {path} has {why}: name the LoRA's .safetensors file")
    return found[0]


def _require_lora(path: Path, names: dict[str, Name | None]) -> None:
    unread = sorted({match.group(1) for name in names if (match := UNREAD.search(name))})
    if unread:
        raise InputError(f"{path} holds updates of a kind that is not read here ({', '.join(unread)}): use a LoRA")
    if not names:
        raise InputError(f"{path} holds no tensors: get the file again")
    if not any(found is not None and found.part in PARTS for found in names.values()):
        first = printable(next(iter(names)), 60)
        raise InputError(
            f"{path} is no LoRA, but weights of a model ({first}, ...): check it with `cryptomnesia check --model`"
        )


def _finite(tensor: Tensor, name: str, path: Path) -> Tensor:
    if tensor.numel() == 1 and not tensor.is_complex():  # alpha, which some write as a whole number
        tensor = tensor.float()
    if not tensor.is_floating_point():
        raise InputError(f"{path} has {printable(name, 160)} as whole numbers, which no LoRA has: get the file again")
    if tensor.ndim and not tensor.numel():
        raise InputError(f"{path} has nothing in {printable(name, 160)}, a tensor of rank 0: train it again")
    if tensor.element_size() == 1:  # float8 has no arithmetic of its own
        tensor = tensor.to(torch.float16)
    if not torch.isfinite(tensor).all():
        raise InputError(
            f"{path} holds NaN or infinity in {printable(name, 160)}: the training failed; take an earlier state of it"
        )
    return tensor


def _update(module: str, group: Group, path: Path, alpha: float | None) -> Update:
    """The update of one module, from its tensors. Raises InputError where one is missing or does not fit."""
    if "alpha" in group:
        if group["alpha"].numel() != 1:
            raise InputError(f"{path} has an alpha of {group['alpha'].numel()} values for {printable(module, 160)}")
        alpha = group["alpha"].item()
    made = _main(module, group, path)
    if made is None:
        if "bias" not in group:
            left = ", ".join(sorted(group))
            raise InputError(f"{path} has {left} of {printable(module, 160)} and no factors beside it: get it again")
        return Dense(difference=None, bias=group["bias"])
    scale = 1.0 if alpha is None or made.rank is None else alpha / made.rank
    lengths = group.get("magnitude")
    if "row_lengths" in group:  # peft's, whose shape for convolutions is that of other trainers' columns
        lengths = group["row_lengths"].reshape(-1, 1)
    return replace(made, scale=scale, bias=group.get("bias"), magnitude=lengths)


def _main(module: str, group: Group, path: Path) -> Update | None:
    def need(part: str) -> Tensor:
        if part not in group:
            has = ", ".join(sorted(set(group) - {"alpha", "magnitude", "row_lengths", "bias"}))
            raise InputError(f"{path} lacks {part} of {printable(module, 160)}, beside {has}: get the file again")
        return group[part]

    try:
        if {"down", "up", "mid"} & group.keys():
            made: Update = LowRank(first=need("down"), second=need("up"), middle=group.get("mid"))
            _require_chain(module, made, path)
        elif any(part.startswith("hada") for part in group):
            sides = ((need(f"hada_w{i}_a"), need(f"hada_w{i}_b"), group.get(f"hada_t{i}")) for i in (1, 2))
            made = Hadamard(factors=tuple(sides))
        elif any(part.startswith("lokr") for part in group):
            made = Kronecker(factors=tuple(_side(group, i, need) for i in (1, 2)))
        elif "diff" in group:
            return Dense(difference=group["diff"])
        else:
            return None
        if not 1 <= len(made.shape) <= 5 or not all(made.shape):
            raise ValueError
        if isinstance(made, Hadamard | Kronecker) and made._dense().shape != torch.Size(made.shape):
            raise ValueError
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        shapes = ", ".join(f"{part} {tuple(tensor.shape)}" for part, tensor in sorted(group.items()))
        raise InputError(f"{path} has factors of {printable(module, 160)} that do not fit ({shapes})") from error
    return made


def _side(group: Group, number: int, need: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
    whole = group.get(f"lokr_w{number}")
    if whole is not None:
        return whole, None, None
    return need(f"lokr_w{number}_a"), need(f"lokr_w{number}_b"), group.get(f"lokr_t{number}")


def _require_chain(module: str, made: LowRank, path: Path) -> None:
    down, up, middle = made.first, made.second, made.middle
    if down.ndim < 2 or up.ndim < 2:
        raise ValueError
    inner = (down.shape[0], up.shape[1]) if middle is None else (down.shape[0], middle.shape[1])
    outer = inner if middle is None else (up.shape[1], middle.shape[0])
    if inner[0] != inner[1] or outer[0] != outer[1] or any(size != 1 for size in up.shape[2:]):
        raise ValueError


def _config_of(path: Path, metadata: dict[str, str]) -> tuple[Any, str | None]:
    """A function from a module's name to its alpha where no tensor tells it, and who wrote the config, if there is one.

    PEFT keeps alpha in a file beside the weights, and diffusers, since 0.34, in the header.
    """
    document = None
    if (path.parent / CONFIG).is_file() and path.name.startswith("adapter_model"):
        try:
            document = read_json(path.parent / CONFIG, CONFIG_LIMIT)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path.parent / CONFIG} cannot be read ({error}): without it the scale is not known"
            ) from error
    if document is not None:
        return _alphas([("", document)], path), "PEFT"
    try:
        header = json.loads(metadata.get("lora_adapter_metadata", "null"))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        return (lambda module: None), None
    parts: dict[str, dict[str, Any]] = defaultdict(dict)
    for key, value in header.items():
        prefix, _, option = key.partition(".")
        parts[prefix + "."][option] = value
    return _alphas(list(parts.items()), path), "diffusers"


def _alphas(configs: list[tuple[str, dict[str, Any]]], path: Path) -> Any:
    def number(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
            raise InputError(f"{path} tells an alpha or a rank that is no number ({printable(str(value), 40)})")
        return float(value)

    def alpha_of(module: str) -> float | None:
        for prefix, config in configs:
            if not module.startswith(prefix) or config.get("lora_alpha") is None:
                continue
            alpha, rank = config["lora_alpha"], config.get("r")
            for key, name in (("alpha_pattern", "alpha"), ("rank_pattern", "rank")):
                for pattern, value in (config.get(key) or {}).items():
                    if re.search(rf"(^|\.){re.escape(str(pattern).lstrip('^'))}$", module):
                        alpha, rank = (value, rank) if name == "alpha" else (alpha, value)
            # rank-stabilised: alpha / sqrt(rank) in place of alpha / rank
            return number(alpha) * (number(rank) ** 0.5 if config.get("use_rslora") and rank else 1.0)
        return None

    return alpha_of


def _format(names: dict[str, Name | None], config: str | None) -> str:
    kinds = {found.kind for found in names.values() if found is not None}
    parts = {found.part for found in names.values() if found is not None}
    lycoris = [
        name for prefix, name in (("hada", "LoHa"), ("lokr", "LoKr")) if any(part.startswith(prefix) for part in parts)
    ]
    base = next((kind for kind in ("diffusers", "PEFT", "kohya") if kind in kinds), "kohya")
    base = config if config is not None and base != "kohya" else base
    words = [f"LyCORIS {' and '.join(lycoris)}" if lycoris else base]
    words += ["DoRA"] if parts & {"magnitude", "row_lengths"} else []
    return ", ".join(words)
