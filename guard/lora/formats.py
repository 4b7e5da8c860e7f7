"""The names of tensors in LoRA files: which module they belong to, and which part of its update they are."""

import re
from typing import NamedTuple

_FACTORS = {
    ".lora_down.weight": ("down", "kohya"),
    ".lora_up.weight": ("up", "kohya"),
    ".lora_mid.weight": ("mid", "kohya"),
    ".lora_A.weight": ("down", "PEFT"),
    ".lora_B.weight": ("up", "PEFT"),
    ".lora_A.default.weight": ("down", "PEFT"),
    ".lora_B.default.weight": ("up", "PEFT"),
    ".lora_A": ("down", "PEFT"),
    ".lora_B": ("up", "PEFT"),
    ".lora_B.bias": ("bias", "PEFT"),
    ".lora.down.weight": ("down", "diffusers"),
    ".lora.up.weight": ("up", "diffusers"),
    "_lora.down.weight": ("down", "diffusers"),
    "_lora.up.weight": ("up", "diffusers"),
    ".lora_linear_layer.down.weight": ("down", "diffusers"),
    ".lora_linear_layer.up.weight": ("up", "diffusers"),
    ".lora_magnitude_vector": ("row_lengths", "PEFT"),
    ".lora_magnitude_vector.weight": ("row_lengths", "PEFT"),
    ".lora_magnitude_vector.default": ("row_lengths", "PEFT"),
    ".lora_magnitude_vector.default.weight": ("row_lengths", "PEFT"),
    ".dora_scale": ("magnitude", "kohya"),
    ".alpha": ("alpha", "kohya"),
    ".diff": ("diff", "kohya"),
    ".diff_b": ("bias", "kohya"),
    ".w_norm": ("diff", "kohya"),
    ".b_norm": ("bias", "kohya"),
    ".hada_w1_a": ("hada_w1_a", "kohya"),
    ".hada_w1_b": ("hada_w1_b", "kohya"),
    ".hada_w2_a": ("hada_w2_a", "kohya"),
    ".hada_w2_b": ("hada_w2_b", "kohya"),
    ".hada_t1": ("hada_t1", "kohya"),
    ".hada_t2": ("hada_t2", "kohya"),
    ".lokr_w1": ("lokr_w1", "kohya"),
    ".lokr_w1_a": ("lokr_w1_a", "kohya"),
    ".lokr_w1_b": ("lokr_w1_b", "kohya"),
    ".lokr_w2": ("lokr_w2", "kohya"),
    ".lokr_w2_a": ("lokr_w2_a", "kohya"),
    ".lokr_w2_b": ("lokr_w2_b", "kohya"),
    ".lokr_t1": ("lokr_t1", "kohya"),
    ".lokr_t2": ("lokr_t2", "kohya"),
}
_ENDINGS = sorted(_FACTORS, key=len, reverse=True)
PARTS = frozenset(part for part, _ in _FACTORS.values()) - {
    "alpha",
    "magnitude",
    "row_lengths",
}  # which make a file a LoRA
# orthogonal fine-tuning, IA3, GLoRA, replaced weights: other kinds of updates than a sum
UNREAD = re.compile(
    r"\.(oft_blocks|oft_diag|boft_blocks|ia3_\w+|on_input|a1\.weight|b1\.weight|set_weight|reshape_weight)$"
)


class Name(NamedTuple):
    """What a tensor's name says: the module, the part of its update, and whose way of naming it is."""

    module: str
    part: str
    kind: str


def parsed(name: str) -> Name | None:
    """Returns what the name of a tensor says; None where it is none of an update."""
    for ending in _ENDINGS:
        if name.endswith(ending) and len(name) > len(ending):
            part, kind = _FACTORS[ending]
            module = name.removesuffix(ending)
            if kind == "PEFT" and module.startswith(("unet.", "transformer.", "text_encoder")):
                kind = "diffusers"  # which writes PEFT's names below its own parts'
            return Name(module, part, kind)
    return None
