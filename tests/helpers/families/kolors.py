"""Kolors: what Stable Diffusion XL's network is fed, with ChatGLM's tokens."""

import io
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import KolorsPAGPipeline, KolorsPipeline

from ..pipelines import LETTERS, WIDTH, ddim, unet, vae
from . import perturbed
from . import stable_diffusion as unets

FOLDER = tempfile.TemporaryDirectory(prefix="kolors-")  # a tokenizer copies its file when it is saved


@cache
def letters() -> Path:
    """The file of a tokenizer with one token per letter."""
    sentencepiece: Any = pytest.importorskip("sentencepiece")
    file, trained = Path(FOLDER.name) / "tokenizer.model", io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*LETTERS]),
        model_writer=trained,
        model_type="char",
        vocab_size=30,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    file.write_bytes(trained.getvalue())
    return file


def encoder() -> Any:
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel

    made = ChatGLMModel(
        ChatGLMConfig(
            num_layers=2,
            padded_vocab_size=64,
            hidden_size=WIDTH,
            ffn_hidden_size=32,
            kv_channels=8,
            num_attention_heads=2,
            multi_query_attention=True,
            add_qkv_bias=True,
            original_rope=True,
        )
    )
    for parameter in made.parameters():  # which it leaves as the memory was
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def kolors(cls: Any = KolorsPipeline) -> Any:
    tokenizer = letters()
    from diffusers.pipelines.kolors.tokenizer import ChatGLMTokenizer

    network = unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="text_proj",
    )
    return cls(vae(), encoder(), ChatGLMTokenizer(str(tokenizer)), network, ddim())


FAMILIES = {
    "kolors": unets.family(kolors),
    "kolors-pag": unets.family(lambda: kolors(KolorsPAGPipeline), own=perturbed.own),
}
