"""Pipelines that put an instruction before prompts, Lumina's and Sana's, and what is Sana's and Sprint's alone."""

from typing import Any

import numpy as np
import pytest

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.network_calls import read_call
from cryptomnesia.adapters.pipeline_call import original_call
from cryptomnesia.adapters.request import Request
from cryptomnesia.adapters.sampling import TextToImage
from cryptomnesia.errors import InputError, NotApplicable

from ..helpers.families import Fed, families

FAMILIES = families()


@pytest.mark.parametrize(("name", "option"), [("lumina-2", "system_prompt"), ("sana", "complex_human_instruction")])
def test_another_instruction_is_checked_but_not_rewritten(name: str, option: str):
    family = FAMILIES[name]
    pipe = family.made()
    value: Any = "draw" if option == "system_prompt" else None  # None is to have none
    request = Request.read(original_call(pipe), pipe, ("a cat",), {option: value})
    with pytest.raises(NotApplicable, match=f"{option} is set"):
        request.require_rewritable(0)
    with Guard(pipe, unverified="allow").attached():
        (report,) = family.call(pipe, **{option: value}).memorization
    assert report.score is not None


@pytest.mark.parametrize("name", ["lumina-2", "sana"])
def test_the_pipelines_own_negative_prompt_is_the_empty_one(name: str):
    family = FAMILIES[name]
    pipe = family.made()
    denoiser: Any = to_denoiser(pipe)
    with Fed(pipe.transformer) as seen:
        family.call(pipe, steps=1, **(family.guided or {}))
    conditions = [read_call(denoiser, *call)[2] for call in zip(seen.calls, seen.returned, strict=True)]
    negative = conditions[0][[0]] if len(conditions) == 1 else conditions[1]
    for key, tensor in denoiser.empty.tensors.items():
        np.testing.assert_allclose(negative.tensors[key].float(), tensor.float(), rtol=1e-5, atol=1e-5)
    assert not np.allclose(denoiser.encode("").tensors["text"], denoiser.empty.tensors["text"])


def test_instructions_are_no_words_of_the_prompt():
    for name in ("lumina-2", "sana"):
        denoiser: Any = to_denoiser(FAMILIES[name].made())
        ((tokenizer, limit),) = denoiser._tokenizers()
        tokens = tokenizer("a cat").input_ids
        assert len(tokens) > len(tokenizer("a cat", add_special_tokens=False).input_ids) + 1
        assert not denoiser.truncated("a cat") and denoiser.truncated("a " * limit)


def test_sprint_samples_in_any_number_of_steps():
    family = FAMILIES["sana-sprint"]
    for steps in (None, 1, 2, 3):
        pipe = family.made()
        with Fed(pipe.transformer) as seen:
            TextToImage(pipe, steps=steps, **family.size).images(["a cat"], [0])
        assert len(seen.calls) == (steps or 2)


def test_sprint_compares_the_scales_that_it_is_told():
    pipe = FAMILIES["sana-sprint"].made()
    guard = Guard(to_denoiser(pipe, reference="guidance scales"))
    report = guard.check("a cat", **FAMILIES["sana-sprint"].size)
    assert report.reference == "guidance scales" and report.score is not None and report.score > 0


def test_sprints_configuration_may_not_contradict_its_weights():
    pipe = FAMILIES["sana-sprint"].made()
    pipe.transformer.register_to_config(guidance_embeds=False)
    with pytest.raises(InputError, match="contradict each other"):
        Guard(pipe).check("a cat", **FAMILIES["sana-sprint"].size)
