"""What is peculiar to families of packed flow: as many tokens as a prompt has, templates, reference images, guiders."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AdaptiveProjectedMixGuidance

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.guidance import guidance_arguments
from cryptomnesia.adapters.network_calls import read_call
from cryptomnesia.adapters.pipeline_call import original_call, parameters
from cryptomnesia.adapters.sampling import TextToImage
from cryptomnesia.calibration import calibrate
from cryptomnesia.denoiser import Condition
from cryptomnesia.errors import InputError, MemorizationWarning, NotApplicable

from ..helpers.families import Fed, families
from ..helpers.guarded import BENIGN, above
from ..helpers.recording import CLOSE

FAMILIES = families()
FLUX_2 = ("flux-2", "flux-2-klein", "flux-2-klein-distilled")


def known(pipe: Any) -> Any:
    return parameters(original_call(pipe))


def start(rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(1))


# --- as many tokens as a prompt has ---


def test_padding_to_the_longest_prompt_changes_no_answer():
    denoiser: Any = to_denoiser(FAMILIES["qwen-image"].made())
    prompts = ["a", "a much longer prompt than the first"]
    together, apart = denoiser.encode(prompts), [denoiser.encode(prompt) for prompt in prompts]
    assert together.tensors["text"].shape[1] == apart[1].tensors["text"].shape[1] > apart[0].tensors["text"].shape[1]
    joined = Condition.cat(apart)
    for key, tensor in together.tensors.items():
        torch.testing.assert_close(joined.tensors[key], tensor, **CLOSE)
    x = start().expand(2, -1, -1, -1)
    both = denoiser.predict(x, denoiser.levels.pure_noise, together).raw
    for row, condition in enumerate(apart):
        torch.testing.assert_close(
            denoiser.predict(x[:1], denoiser.levels.pure_noise, condition).raw[0], both[row], **CLOSE
        )


def test_a_shorter_sequence_than_the_check_reads_is_not_rewritten():
    family = FAMILIES["qwen-image"]
    pipe = family.made()
    denoiser: Any = to_denoiser(pipe)
    scores = calibrate(denoiser, denoiser.encode(BENIGN), draws=1, latent_shape=(4, 8, 8))
    guard = Guard(pipe, above(scores, -1e9), policy="rewrite", unverified="allow")
    with guard.attached(), pytest.warns(MemorizationWarning):
        made = family.call(pipe, "a cat that sits on a mat", max_sequence_length=20)
    about = made.memorization[0].mitigation
    assert about is not None and not about.held and "leave out max_sequence_length" in about.reason


def test_embeddings_with_gaps_are_no_prompts():
    pipe = FAMILIES["qwen-image"].made()
    denoiser: Any = to_denoiser(pipe)
    with Fed(pipe.transformer) as seen:
        denoiser.predict(start(), denoiser.levels.pure_noise, denoiser.encode("a cat"))
    (arguments,) = seen.calls
    mask = torch.ones(arguments["encoder_hidden_states"].shape[:2])
    mask[0, 3] = 0
    with pytest.raises(NotApplicable, match="gaps"):
        read_call(denoiser, arguments | {"encoder_hidden_states_mask": mask}, seen.returned[0])


# --- templates ---


@pytest.mark.parametrize("name", ["qwen-image", *FLUX_2, "hunyuan-image"])
def test_saliency_is_that_of_the_words_and_not_of_the_template(name: str):
    """Only the embedding of the second word counts in this score, read where the encoder has it."""
    pipe = FAMILIES[name].made()
    denoiser: Any = to_denoiser(pipe)
    tokens = denoiser._tokenizers()[0][0]
    prompt, spans = "abc defgh ij", [(0, 3), (4, 9), (10, 12)]
    table = pipe.text_encoder.get_input_embeddings()
    fed: list[torch.Tensor] = []
    handle = table.register_forward_hook(lambda module, inputs, output: fed.append(inputs[0]))
    denoiser.encode(prompt)
    handle.remove()
    first = len(tokens(prompt).input_ids) - len(prompt[4:])  # a token per byte
    (ids,) = fed[0]
    assert ids[first : first + 5].tolist() == tokens("defgh", add_special_tokens=False).input_ids

    values: list[torch.Tensor] = []
    layer = next(m for n, m in pipe.text_encoder.named_modules() if n.endswith("layers.0.input_layernorm"))
    handle = layer.register_forward_pre_hook(lambda module, inputs: values.append(inputs[0]))
    found = denoiser.significance(prompt, spans, lambda condition, grad: values[-1][:, first : first + 5].sum((1, 2)))
    handle.remove()
    assert found[1] > 0 and found[0] == found[2] == 0


@pytest.mark.parametrize(("name", "limit"), [("qwen-image", 512), ("chroma", 511), ("hunyuan-image", None)])
def test_what_exceeds_the_encoder_is_truncated(name: str, limit: int | None):
    denoiser: Any = to_denoiser(FAMILIES[name].made())
    if name != "chroma":  # the small tokenizers read bytes, so that the template is longer than the real one
        tokens, most = denoiser._tokenizers()[0]
        limit = most - len(tokens("").input_ids)
    assert limit is not None
    text = "a" * limit if name != "chroma" else "a" * (limit - 1)
    assert not denoiser.truncated(text) and denoiser.truncated(text + "bb")
    if name != "chroma":
        one, other = (denoiser.encode(part).tensors["text"] for part in (text + "b", text + "c"))
        torch.testing.assert_close(one, other, **CLOSE)
        assert not torch.allclose(denoiser.encode(text[:-1] + "b").tensors["text"], one)


# --- what else a network may be told ---


@pytest.mark.parametrize("name", FLUX_2)
def test_a_reference_image_is_not_applicable(name: str):
    image = pytest.importorskip("PIL.Image").new("RGB", (64, 64))
    family = FAMILIES[name]
    guard = Guard(family.made(), unverified="allow")
    with guard.attached():
        made = family.call(guard.denoiser.pipe, image=image)  # type: ignore[attr-defined]
    (report,) = made.memorization
    assert report.verdict == "not applicable" and "reference image" in report.reason


def test_where_a_step_ends_is_no_part_of_the_prompt():
    """What a network that is told answers about its whole step is not taken for the velocity at its start."""
    family = FAMILIES["hunyuan-image-distilled"]
    pipe = family.made()
    denoiser: Any = to_denoiser(pipe)
    x, condition = start(), denoiser.encode("a cat")
    here = denoiser.predict(x, denoiser.level(1.0), condition).raw
    until = Condition(**condition.tensors, until=torch.tensor([0.5]))
    assert not torch.allclose(denoiser.predict(x, denoiser.level(1.0), until).raw, here)
    now = Condition(**condition.tensors, until=torch.tensor([1.0]))
    torch.testing.assert_close(denoiser.predict(x, denoiser.level(1.0), now).raw, here, **CLOSE)


def test_quoted_text_reaches_the_second_encoder():
    denoiser: Any = to_denoiser(FAMILIES["hunyuan-image"].made())
    plain, quoted = denoiser.encode(["a sign", 'a sign "open"'])[[0]], denoiser.encode('a sign "open"')
    assert not plain.tensors["glyph_mask"].any() and quoted.tensors["glyph_mask"].any()
    silent = Condition(**{**quoted.tensors, "glyph_mask": torch.zeros_like(quoted.tensors["glyph_mask"])})
    answers = [denoiser.predict(start(), denoiser.levels.pure_noise, part).raw for part in (quoted, silent)]
    assert not torch.allclose(*answers)


def test_weights_that_contradict_the_guidance_input_are_told():
    pipe = FAMILIES["flux-2"].made()
    pipe.transformer.time_guidance_embed.guidance_embedder = None
    with pytest.raises(InputError, match="contradict"):
        Guard(pipe).check("a cat", height=16, width=16)


# --- guidance ---


def test_guidance_is_told_by_the_pipelines_own_name():
    qwen, dev, klein, distilled, told, guided, plain = (
        FAMILIES[name].made()
        for name in (
            "qwen-image",
            "flux-2",
            "flux-2-klein",
            "flux-2-klein-distilled",
            "hunyuan-image-distilled",
            "hunyuan-image-guided",
            "hunyuan-image",
        )
    )
    assert guidance_arguments(qwen, known(qwen), 3.0) == {"true_cfg_scale": 3.0, "negative_prompt": ""}
    assert guidance_arguments(dev, known(dev), 3.0) == {"guidance_scale": 3.0}
    assert guidance_arguments(klein, known(klein), 3.0) == {"guidance_scale": 3.0}
    assert guidance_arguments(told, known(told), 3.0) == {"distilled_guidance_scale": 3.0}
    assert guidance_arguments(guided, known(guided), None, "blurry") == {"negative_prompt": "blurry"}
    assert [TextToImage(pipe).guidance for pipe in (qwen, dev, klein, distilled, told, guided, plain)] == [
        4.0,
        4.0,
        4.0,
        1.0,
        3.25,
        3.5,
        1.0,
    ]
    for pipe, guidance, negative, words in (
        (klein, None, "blurry", "no negative prompt"),
        (dev, None, "blurry", "told its guidance as a number"),
        (distilled, 3.0, "", "ignores a guidance scale"),
        (guided, 3.0, "", "its guider"),
    ):
        with pytest.raises(InputError, match=words):
            guidance_arguments(pipe, known(pipe), guidance, negative)


def test_a_guider_that_is_switched_off_does_not_guide():
    pipe = FAMILIES["hunyuan-image-guided"].made()
    pipe.guider = AdaptiveProjectedMixGuidance(enabled=False)
    assert TextToImage(pipe).guidance == 1.0


def test_images_of_a_chosen_latent_decode_as_the_pipeline_decodes():
    """The autoencoders' statistics, of patches or of channels, and of one frame."""
    for name in ("qwen-image", "flux-2", "hunyuan-image", "chroma"):
        family = FAMILIES[name]
        perfect = family.perfect(start() * 2)
        denoiser: Any = to_denoiser(perfect)
        made = family.call(perfect, steps=8, output_type="np").images
        with Fed(perfect.transformer) as seen:
            family.call(perfect, steps=8)
        x, time, _, raw = read_call(denoiser, seen.calls[-1], seen.returned[-1])
        last = x - float(time.flatten()[0]) * raw
        if name == "qwen-image":  # whose schedule ends before 0
            last = x - (float(time.flatten()[0]) - float(perfect.scheduler.sigmas[-1])) * raw
        decoded = denoiser.decode(last).permute(0, 2, 3, 1).numpy()
        assert np.abs(decoded - made).max() < 1e-4, name
