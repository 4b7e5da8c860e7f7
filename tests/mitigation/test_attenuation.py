"""Attenuated tokens: what attention makes of them, where words are, and for real on the built-in model."""

from dataclasses import replace

import pytest
import torch

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.demo.captions import select
from cryptomnesia.denoiser import Condition
from cryptomnesia.errors import InputError, NotApplicable
from cryptomnesia.mitigation.attenuation import _Search, attended, attenuate
from cryptomnesia.mitigation.mitigate import mitigate
from cryptomnesia.mitigation.objective import LIMIT, Objective
from cryptomnesia.mitigation.words import Words

from ..helpers import toy
from ..helpers.guarded import SHAPE, call, flags_none, of_a_few
from ..helpers.pipelines import build


@pytest.fixture(scope="module")
def memorized(demo):
    reports = Guard(*demo).check_many([c.text for c in select("verbatim", "dev")])
    return next(report.prompt for report in reports if report.memorized)


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- what attention reads ---


def test_attention_to_what_is_taken_out_goes_to_what_says_nothing():
    text, empty, query = rows(7), rows(7, 1), rows(5, 2)
    text[0] = empty[0]
    kept, found = text.clone(), attended(text, empty, {2, 5})
    assert torch.equal(found, text[[0, 0, 2, 0, 0, 5, 0]]) and torch.equal(text, kept)
    # as if the first row were there five times, and the others masked
    bias = torch.full((7,), -torch.inf, dtype=torch.float64)
    bias[[0, 2, 5]] = torch.tensor([5.0, 1.0, 1.0], dtype=torch.float64).log()
    attention = torch.nn.functional.scaled_dot_product_attention
    torch.testing.assert_close(attention(query, found, found), attention(query, text, text, attn_mask=bias))


def test_rows_that_say_nothing_take_turns_whatever_they_are():
    text, empty = rows(8), rows(8, 1)
    text[[0, 6, 7]] = empty[[0, 6, 7]] + 1e-6  # as another batch rounds it
    assert torch.equal(attended(text, empty, {3}), text[[0, 0, 6, 3, 7, 0, 6, 7]])
    assert torch.equal(attended(text, empty, {1, 2, 3, 4, 5}), text)
    assert torch.equal(attended(rows(4), rows(4, 1), set()), rows(4))  # none says nothing


# --- where words are ---


def test_words_have_the_rows_of_their_tokens(demo):
    denoiser, _ = demo
    prompt = "the solemn baker of ravenna"
    assert denoiser.token_rows(prompt, Words.of(prompt).spans) == [[1], [2], [3], [4], [5]]
    long = "the " * 100
    found = denoiser.token_rows(long, Words.of(long).spans)
    assert found[74] == [75] and found[75:] == [[]] * 25  # the end's token takes the last of 77
    # nothing before a causal encoder's changed word changes
    other = denoiser.encode(["the solemn baker of ravenna", "the solemn tower of ravenna"]).tensors["text"]
    assert [int(row) for row in (other[0] != other[1]).any(-1).nonzero()[:1]] == found[2]


def test_words_are_in_clip_and_behind_it_in_t5():
    denoiser = to_denoiser(build("sd3"))
    found = denoiser.token_rows("a cat", [(0, 1), (2, 5)])
    behind = denoiser.pipe.tokenizer_max_length
    for words in found:
        clip, t5 = [r for r in words if r < behind], [r for r in words if r >= behind]
        assert clip and t5 and clip == sorted(clip) and t5 == sorted(t5)
    assert found[0][0] == 1 and not set(found[0]) & set(found[1])
    length = denoiser.encode("a cat").tensors["text"].shape[1]
    assert max(found[1]) < length


def test_where_words_are_not_known_is_said_in_one_line():
    denoiser = to_denoiser(build("pixart"))
    with pytest.raises(NotApplicable, match="use rewrite or embed") as error:
        denoiser.token_rows("a cat", [(0, 1)])
    assert "\n" not in str(error.value)


def test_a_denoiser_that_reads_no_words_is_refused(demo):
    linear = toy.linear(encode=lambda texts: toy.prompts(len(texts)))
    with pytest.raises(NotApplicable, match="not known of this model"):
        attenuate(linear, demo[1], "a cat", Condition(text=toy.prompts(1)))


# --- on the built-in model ---


def test_a_memorized_prompt_holds_without_some_tokens_and_keeps_its_text(demo, memorized):
    denoiser, calibration = demo
    original = denoiser.encode(memorized)
    before = original.tensors["text"].clone()
    found = mitigate("attenuate", denoiser, calibration, memorized, original)
    about = found.mitigation
    assert about.held and about.rewritten == memorized and about.p_before <= calibration.alpha < about.p_after
    assert torch.equal(original.tensors["text"], before)
    gone = [change.word for change in about.words]
    assert len(gone) < 5 and set(gone) <= set(memorized.split()) and {c.kind for c in about.words} <= {"attenuate"}
    assert found.condition is not None
    stays = [i for i, word in enumerate(memorized.split(), 1) if word not in gone]
    text = found.condition.tensors["text"][0]
    assert torch.equal(text[[0, *stays]], before[0, [0, *stays]])
    assert {tuple(row.tolist()) for row in text} == {tuple(before[0, i].tolist()) for i in (0, *stays)}
    again = Objective(denoiser, calibration, original, seed=4711)(found.condition)
    assert again.p_value.item() > calibration.alpha and again.guidance_similarity.item() < 2 * LIMIT


def test_the_vector_that_sums_the_words_up_is_taken_out_too():
    denoiser = to_denoiser(build("sd3"))
    lenient = replace(of_a_few(denoiser), scores=[1e9] * 100, alpha=1e-6)
    original, blank = denoiser.encode("a cat"), denoiser.encode("").tensors
    search = _Search(denoiser, lenient, "a cat", original, 0, SHAPE)
    texts = search._without([(), (0,)])
    assert torch.equal(texts.tensors["pooled"], blank["pooled"][[0, 0]])
    rows = denoiser.token_rows("a cat", [(0, 1), (2, 5)])
    whole = original.tensors["text"][0]
    assert torch.equal(texts.tensors["text"][0][rows[0] + rows[1]], whole[rows[0] + rows[1]])
    assert torch.equal(texts.tensors["text"][1][rows[1]], whole[rows[1]])
    gone = {tuple(whole[i].tolist()) for i in rows[0]}
    assert not gone & {tuple(row.tolist()) for row in texts.tensors["text"][1]}


def test_when_no_choice_of_words_will_do_nothing_is_changed(demo, memorized):
    denoiser, calibration = demo
    strict = replace(calibration, scores=[-1e9] * calibration.n)
    found = attenuate(denoiser, strict, memorized, denoiser.encode(memorized))
    about = found.mitigation
    assert found.condition is None and not about.held and not about.words and "no choice of words" in about.reason


def test_there_must_be_a_text_and_it_must_be_the_prompts_own(demo, memorized):
    denoiser, calibration = demo
    original = denoiser.encode(memorized)
    with pytest.raises(InputError, match="no text to attenuate"):
        mitigate("attenuate", denoiser, calibration, None, original)
    longer = Condition(text=torch.nn.functional.pad(original.tensors["text"], (0, 0, 0, 3)))
    with pytest.raises(NotApplicable, match="80 rows of text"):
        attenuate(denoiser, calibration, memorized, longer)


# --- attached ---


def test_an_attached_guard_leaves_clear_prompts_alone():
    plain, pipe = call(build("sd1")).images, build("sd1")
    with Guard(pipe, flags_none("sd1"), "attenuate").attached():
        assert torch.equal(call(pipe).images, plain)


def test_an_attached_guard_samples_without_the_memory(demo, memorized):
    pipe, calibration = demo[0].pipe, demo[1]
    with Guard(pipe, calibration, "attenuate").attached():
        out = pipe(memorized, num_inference_steps=1, generator=torch.Generator().manual_seed(3), output_type="latent")
    report = out.memorization[0]
    assert report.mitigation is not None and report.mitigation.held and not report.memorized
    assert report.prompt == memorized
