"""Small language models with random weights that read prompts, and a tokenizer of bytes for them."""

from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WORDS = 256 + len(SPECIAL)
TEXT: dict[str, Any] = {
    "vocab_size": WORDS,
    "intermediate_size": 16,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "bos_token_id": 256,
    "eos_token_id": 256,
    "pad_token_id": 256,
}
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(side: str = "right") -> Any:
    """One token per byte, and a chat's template."""
    vocabulary = {piece: i for i, piece in enumerate([*sorted(ByteLevel.alphabet()), *SPECIAL])}
    made = Qwen2Tokenizer(vocabulary, [], padding_side=side, model_max_length=4096)
    made.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:])})
    made.chat_template = CHAT
    return made


def qwen_vl(width: int = 16, layers: int = 1) -> Any:
    text = TEXT | {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, width // 2 - 4], "rope_theta": 1e4},
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 1,
        "out_hidden_size": width,
        "fullatt_block_indexes": [0],
    }
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def qwen3(layers: int, width: int = 8) -> Any:
    return Qwen3ForCausalLM(Qwen3Config(**TEXT, hidden_size=width, head_dim=width, num_hidden_layers=layers))


def mistral(layers: int, width: int = 8) -> Any:
    text = TEXT | {"model_type": "mistral", "hidden_size": width, "head_dim": width, "num_hidden_layers": layers}
    vision = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "head_dim": 16,
        "image_size": 28,
        "patch_size": 14,
    }
    return Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision))
