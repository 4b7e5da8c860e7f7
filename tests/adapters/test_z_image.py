"""What is Z-Image's alone: it writes into its list of prompts, counts guidance from zero, and may end it early."""

from typing import Any

import numpy as np
import pytest
import torch

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.network_calls import read_call
from cryptomnesia.adapters.sampling import TextToImage

from ..helpers.families import Fed, families

FAMILIES = families()


def test_prompts_given_as_a_list_are_left_as_they_are():
    family, prompts = FAMILIES["z-image"], ["a cat", "two dogs"]
    pipe = family.made()
    with Guard(pipe, unverified="allow").attached():
        family.call(pipe, prompts)
    assert prompts == ["a cat", "two dogs"]


def test_branches_are_read_in_order_where_guidance_ends_early():
    family = FAMILIES["z-image"]
    pipe = family.made()
    denoiser: Any = to_denoiser(pipe)
    with Fed(pipe.transformer) as seen:
        family.call(pipe, ["a cat", "a dog"], steps=4, guidance_scale=4.0, cfg_truncation=0.4)
    read = [read_call(denoiser, *call) for call in zip(seen.calls, seen.returned, strict=True)]
    assert [len(x) for x, *_ in read] == [4, 4, 2, 2]
    expected = denoiser.encode(["a cat", "a dog"]).tensors["text"]
    for _, _, condition, _ in read:
        torch.testing.assert_close(condition.tensors["text"][-2:], expected)


def test_embeddings_in_lists_are_as_many_images():
    family = FAMILIES["z-image"]
    pipe = family.made()
    denoiser: Any = to_denoiser(pipe)
    embeddings = denoiser.as_arguments(denoiser.encode(["a cat", "two dogs"]))
    with Guard(pipe, unverified="allow").attached():
        made = family.call(pipe, None, **embeddings)
    assert [report.score is not None for report in made.memorization] == [True, True]


@pytest.mark.parametrize("guidance", [0, 1])
def test_no_guidance_is_none(guidance: float):
    pipe = FAMILIES["z-image"].made()
    with Fed(pipe.transformer) as seen:
        TextToImage(pipe, steps=2, guidance=guidance, height=16, width=16).images(["a cat"], [0])
    assert [len(call["x"]) for call in seen.calls] == [1, 1]


def test_images_of_embeddings_are_those_of_their_texts():
    pipe = FAMILIES["z-image"].made()
    denoiser: Any = to_denoiser(pipe)
    maker = TextToImage(pipe, steps=2, guidance=3.0, height=16, width=16)
    given = denoiser.as_arguments(denoiser.encode("a cat"), denoiser.empty)
    np.testing.assert_allclose(
        maker.images(["zz"], [0], embeddings=lambda count: given), maker.images(["a cat"], [0]), rtol=1e-4, atol=1e-4
    )


def test_words_are_found_within_the_chat():
    denoiser: Any = to_denoiser(FAMILIES["z-image"].made())
    prompt = "a cat"
    score = lambda condition, grad: condition.tensors["text"].square().sum((1, 2))  # noqa: E731
    first, last = denoiser.significance(prompt, [(0, 1), (2, 5)], score)
    assert first > 0 and last > 0
    tokenizer, limit = denoiser._tokenizers()[0]
    tokens, bare = tokenizer(prompt).input_ids, tokenizer(prompt, add_special_tokens=False).input_ids
    assert tokens[: len(bare)] != bare and limit == 512
    assert denoiser.truncated("a " * 300) and not denoiser.truncated("a")
