"""Language models that read prompts, small, with random weights, and their tokenizers: one token per letter."""

from typing import Any

from transformers import (
    AddedToken,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    GlmConfig,
    GlmModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
)

from .pipelines import LETTERS, WIDTH

TURNS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZE: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 2048,
}


def qwen_tokenizer() -> Any:
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {piece: i for i, piece in enumerate([*marks, *LETTERS, "Ġ", "Ċ"])}
    return Qwen2Tokenizer(vocabulary, [], chat_template=TURNS, extra_special_tokens=marks[1:], model_max_length=512)


def qwen3() -> Qwen3Model:
    return Qwen3Model(Qwen3Config(vocab_size=32, pad_token_id=0, **SIZE))


def gemma_tokenizer(*phrases: str) -> GemmaTokenizer:
    """With a token for each of the phrases, so that long instructions take few."""
    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    vocabulary = {piece: i for i, piece in enumerate([*marks, "▁", *LETTERS])}
    tokenizer = GemmaTokenizer(vocabulary, [], add_bos_token=True, model_max_length=2048)
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases])
    return tokenizer


def gemma2() -> Gemma2Model:
    return Gemma2Model(Gemma2Config(vocab_size=64, query_pre_attn_scalar=8, **SIZE))


def glm_tokenizer() -> Any:
    return _plain(["<|endoftext|>", "[gMASK]", "<sop>", "<unk>"], before="[gMASK] <sop>", pad="<|endoftext|>")


def glm() -> GlmModel:
    return GlmModel(GlmConfig(vocab_size=32, pad_token_id=0, **SIZE))


def llama_tokenizer() -> Any:
    return _plain(["<|begin_of_text|>", "<|end_of_text|>", "<unk>"], before="<|begin_of_text|>", pad="<|end_of_text|>")


def llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, bos_token_id=0, eos_token_id=1, **SIZE))


def _plain(marks: list[str], before: str, pad: str) -> PreTrainedTokenizerFast:
    """One token per letter behind those that stand before every text."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    vocabulary = {piece: i for i, piece in enumerate([*marks, *LETTERS, " "])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    ids = [(mark, vocabulary[mark]) for mark in before.split()]
    tokenizer.post_processor = processors.TemplateProcessing(f"{before} $A", f"{before} $A $B", ids)
    eos = pad if pad in marks else None
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token=eos, pad_token=pad, model_max_length=2048
    )
