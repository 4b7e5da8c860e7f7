import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cryptomnesia.denoiser import CallableDenoiser, Condition
from cryptomnesia.errors import InputError, NotApplicable, OutOfMemory
from cryptomnesia.signals.draws import draw_noise
from cryptomnesia.signals.guidance import Guidance
from cryptomnesia.signals.guidance_similarity import guidance_similarity, whiten
from cryptomnesia.signals.memorization import memorization_score
from cryptomnesia.signals.rings import RINGS, ring_energy

from ..helpers import toy


def nonlinear(most_rows: int = 10**6) -> CallableDenoiser:
    """Guidance that depends on x; runs out of memory above `most_rows` rows."""

    def fn(x, t, condition):
        if len(x) > most_rows:
            raise torch.OutOfMemoryError("too many rows")
        pull = condition.mean((1, 2)).view(-1, 1, 1, 1)
        return torch.tanh(x * pull) + pull**2

    return CallableDenoiser(fn, toy.ABAR, empty=torch.zeros(1, 2, 5), latent_shape=toy.SHAPE)


def test_it_is_the_difference_of_the_branches_at_pure_noise():
    denoiser = nonlinear()
    noise, prompts = draw_noise(denoiser, 3, 0), Condition(text=toy.prompts(2))
    found = Guidance(denoiser, noise)(prompts)
    level = denoiser.levels.pure_noise
    for p in range(2):
        for d in range(3):
            x = noise[d : d + 1]
            expected = denoiser.predict(x, level, prompts[[p]]).noise - denoiser.predict(x, level, denoiser.empty).noise
            torch.testing.assert_close(found[p, d], expected[0])


def test_its_spectrum_is_that_of_the_memorization_score():
    denoiser = nonlinear()
    noise, prompts = draw_noise(denoiser, 4, 1), toy.prompts(5)
    guidance = Guidance(denoiser, noise, batch_rows=3)
    torch.testing.assert_close(
        guidance.spectrum(Condition(text=prompts)), memorization_score(denoiser, prompts, noise=noise).spectrum
    )
    assert guidance.forward_rows == 5 * 4 + 4


def gradient(guidance: Guidance) -> torch.Tensor:
    text = toy.prompts(1).requires_grad_()
    guidance.spectrum(Condition(text=text), grad=True).sum().backward()
    assert text.grad is not None
    return text.grad


def test_saving_memory_changes_neither_values_nor_gradients():
    denoiser = nonlinear()
    plain, sparing = (Guidance(denoiser, draw_noise(denoiser, 4, 2)) for _ in range(2))
    assert sparing.save_memory() and not sparing.save_memory()
    prompts = Condition(text=toy.prompts(2))
    torch.testing.assert_close(plain(prompts), sparing(prompts))
    torch.testing.assert_close(gradient(plain), gradient(sparing))


def test_out_of_memory_leads_to_one_row_at_a_time_and_only_then_to_an_error():
    noise, prompts = draw_noise(nonlinear(), 4, 3), Condition(text=toy.prompts(2))
    tight = Guidance(nonlinear(most_rows=1), noise)
    torch.testing.assert_close(tight(prompts), Guidance(nonlinear(), noise)(prompts))
    with pytest.raises(OutOfMemory, match="1 rows"):
        Guidance(nonlinear(most_rows=0), noise)(prompts)


def test_what_inference_mode_computed_serves_gradients_later():
    denoiser = nonlinear()
    with torch.inference_mode():
        guidance = Guidance(denoiser, draw_noise(denoiser, 2, 4))
        guidance(Condition(text=toy.prompts(1)))
    assert gradient(guidance).abs().sum() > 0


@pytest.mark.parametrize("length", [2, 3])  # of the others' text: 2 as the prompts'
def test_other_rows_share_the_prompts_call_where_their_texts_have_one_shape(length):
    denoiser, calls = nonlinear(), []
    fn = denoiser.fn
    denoiser.fn = lambda x, t, condition: calls.append(len(x)) or fn(x, t, condition)
    level, texts = denoiser.levels.pure_noise, Condition(text=toy.prompts(2))
    guidance = Guidance(denoiser, draw_noise(denoiser, 3, 0))
    noise, others = draw_noise(denoiser, 2, 1), Condition(text=torch.rand(2, length, 5))
    expected = guidance(texts)
    start = guidance.empty[None]
    answers = denoiser.predict(noise, level, others).pull
    calls.clear()
    vectors, lower, found, rows = guidance.beside(texts, noise, others)
    assert rows == 8 and calls == ([8] if length == 2 else [6, 2])
    torch.testing.assert_close(vectors, expected)
    torch.testing.assert_close(lower, start)
    torch.testing.assert_close(found, answers)
    fresh = Guidance(denoiser, guidance.noise, batch_rows=3)
    assert fresh.beside(texts, noise, others)[3] == fresh.forward_rows == 8 + 3  # the empty prompt, once


def test_bad_noise_and_models_without_guidance_are_refused():
    denoiser = nonlinear()
    for shape in ((3, 4, 4), (0, 3, 4, 4), (1, 2, 3, 4, 4)):
        with pytest.raises(InputError, match="draws, C, H, W"):
            Guidance(denoiser, torch.zeros(shape))
    with pytest.raises(NotApplicable):
        Guidance(toy.without_guidance(denoiser), draw_noise(denoiser, 1, 0))


vectors = st.integers(0, 2**32).map(lambda s: torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(s)))
references = st.lists(st.floats(0.01, 100), min_size=RINGS, max_size=RINGS)


@given(vectors, references)
def test_whitening_gives_the_score_as_a_squared_norm(guidance, reference):
    expected = (ring_energy(guidance) / torch.tensor(reference)).sum()
    torch.testing.assert_close(whiten(guidance, reference).square().sum(), expected, rtol=1e-4, atol=1e-4)


@given(vectors, references, st.floats(0.01, 100))
def test_guidance_similarity_knows_direction_only(guidance, reference, factor):
    same = guidance_similarity(torch.cat([factor * guidance, -factor * guidance]), guidance, reference)
    torch.testing.assert_close(same, torch.tensor([1.0, -1.0]), rtol=0, atol=1e-4)


def test_guidance_similarity_of_disjoint_frequencies_is_zero():
    flat = torch.ones(1, 1, 8, 8)
    checkers = torch.tensor([1.0, -1.0]).repeat(4).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    assert guidance_similarity(flat, checkers, [1.0] * RINGS).abs().item() < 1e-6
