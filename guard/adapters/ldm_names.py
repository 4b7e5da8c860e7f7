"""What the layers of Stable Diffusion's UNet are called in Stability AI's and ComfyUI's format, and in diffusers'."""

from typing import Any

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def ldm_names(network: Any) -> dict[str, str]:
    """Returns the LDM name of each layer of a UNet, and what diffusers calls it; nothing for other networks.

    Args:
        network: A diffusers model; what lies within attentions has the same names in both.
    """
    config = getattr(network, "config", {})
    layers = (
        config.get("layers_per_block") if hasattr(network, "down_blocks") and hasattr(network, "up_blocks") else None
    )
    if not isinstance(layers, int):
        return {}
    blocks = dict(_blocks(len(network.down_blocks), layers))
    found = dict(_ENDS)
    for name, _ in network.named_modules():
        for old, new in blocks.items():
            if name == new or name.startswith(new + "."):
                rest = name.removeprefix(new)
                if ".resnets." in f".{new}":
                    rest = next((f".{a}" for a, b in _RESNET.items() if rest == f".{b}"), "")
                if rest or new.endswith(".conv"):
                    found[old + rest] = name
    return found


def _blocks(levels: int, layers: int) -> list[tuple[str, str]]:
    pairs = [("middle_block.0", "mid_block.resnets.0"), ("middle_block.1", "mid_block.attentions.0")]
    pairs += [("middle_block.2", "mid_block.resnets.1")]
    for level in range(levels):
        first = 1 + level * (layers + 1)
        for layer in range(layers):
            pairs.append((f"input_blocks.{first + layer}.0", f"down_blocks.{level}.resnets.{layer}"))
            pairs.append((f"input_blocks.{first + layer}.1", f"down_blocks.{level}.attentions.{layer}"))
        pairs.append((f"input_blocks.{first + layers}.0.op", f"down_blocks.{level}.downsamplers.0.conv"))
        for layer in range(layers + 1):
            block = f"output_blocks.{level * (layers + 1) + layer}"
            pairs.append((f"{block}.0", f"up_blocks.{level}.resnets.{layer}"))
            pairs.append((f"{block}.1", f"up_blocks.{level}.attentions.{layer}"))
        last = f"output_blocks.{level * (layers + 1) + layers}"
        # behind the attention, or in its place where the level has none
        pairs += [(f"{last}.{place}.conv", f"up_blocks.{level}.upsamplers.0.conv") for place in (1, 2)]
    return pairs
