"""The denoiser against Gaussian data, whose exact answer is known."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.denoiser import (
    PREDICTION_TYPES,
    CallableDenoiser,
    Condition,
    Levels,
    NoiseLevel,
    Prediction,
    PredictionType,
    fingerprint,
    weights_of,
)
from cryptomnesia.errors import InputError, NonFiniteError

from .helpers import gaussian
from .helpers.pipelines import build

SHAPE = (4, 8, 8)
EMPTY = torch.zeros(1, 3, 5)
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def perfect(kind: PredictionType) -> CallableDenoiser:
    """Knows N(mean, std^2) with the mean named by the condition's first number."""

    def network(x, t, condition):
        return gaussian.output(x, t, kind, condition[:, :1, :1, None].double()).float()

    abar = None if kind == "flow" else gaussian.ABAR
    return CallableDenoiser(network, abar, kind, empty=EMPTY, latent_shape=SHAPE)


def noise(rows: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, *SHAPE, generator=torch.Generator().manual_seed(seed))


def times(kind: str) -> torch.Tensor:
    return torch.tensor([1.0, 0.7, 0.3, 0.01]) if kind == "flow" else torch.tensor([981, 500, 41, 1])


def conditions(rows: int) -> torch.Tensor:
    return torch.arange(float(rows)).view(-1, 1, 1).expand(rows, 3, 5) / 2


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_predictions_are_exact(kind):
    denoiser, x, t, c = perfect(kind), noise(), times(kind), conditions(4)
    found = denoiser.predict(x, denoiser.level(t), c)
    x0, eps = gaussian.split(x, t, kind, c[:, :1, :1, None].double())
    torch.testing.assert_close(found.x0.double(), x0, **CLOSE)
    torch.testing.assert_close(found.noise.double(), eps, **CLOSE)
    assert found.x0.dtype == found.noise.dtype == torch.float32


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_one_call_with_a_level_and_condition_per_row_equals_separate_calls(kind):
    denoiser, x, t, c = perfect(kind), noise(), times(kind), conditions(4)
    together = denoiser.predict(x, denoiser.level(t), c)
    for row in range(4):
        alone = denoiser.predict(x[row : row + 1], denoiser.level(t[row]), c[row : row + 1])
        torch.testing.assert_close(together.x0[row], alone.x0[0], **CLOSE)
        torch.testing.assert_close(together.noise[row], alone.noise[0], **CLOSE)


@given(
    kind=st.sampled_from(PREDICTION_TYPES),
    place=st.floats(0.02, 0.98),
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_x0_and_noise_compose_the_latent_again(kind, place, seed, rows):
    denoiser, x = perfect(kind), noise(rows, seed)
    level = denoiser.levels.fraction(place)
    found = denoiser.predict(x, level, EMPTY)
    torch.testing.assert_close(level.alpha * found.x0 + level.sigma * found.noise, x, rtol=1e-4, atol=1e-4)


@given(kind=st.sampled_from(PREDICTION_TYPES), angle=st.floats(0.05, 1.5), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_conversion_undoes_each_parameterisation(kind, angle, seed):
    alpha, sigma = torch.tensor([angle]).cos(), torch.tensor([angle]).sin()
    if kind == "flow":
        alpha, sigma = 1 - sigma, sigma
    x0, eps = noise(2, seed)[:1], noise(2, seed)[1:]
    raw = {"epsilon": eps, "v": alpha * eps - sigma * x0, "sample": x0, "flow": eps - x0}[kind]
    level = NoiseLevel(alpha, sigma, alpha)
    found = Prediction.from_output(kind, raw, alpha * x0 + sigma * eps, level)
    torch.testing.assert_close(found.x0, x0, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.noise, eps, rtol=1e-3, atol=1e-4)


@given(seed=st.integers(0, 2**32), rows=st.integers(1, 5), data=st.data())
@settings(max_examples=30, deadline=None)
def test_permuting_the_rows_permutes_the_answers(seed, rows, data):
    order = data.draw(st.permutations(range(rows)))
    denoiser, x, c = perfect("epsilon"), noise(rows, seed), Condition.of(conditions(rows))
    level = denoiser.level(torch.linspace(1, 981, rows).long())
    straight = denoiser.predict(x, level, c).x0[order]
    torch.testing.assert_close(denoiser.predict(x[order], level[order], c[order]).x0, straight, **CLOSE)


@given(steps=st.integers(1, 1000))
@settings(max_examples=50, deadline=None)
def test_sampling_levels_fall_and_stay_in_the_schedule(steps):
    found = [level.time.item() for level in Levels(gaussian.ABAR).sampling(steps)]
    assert len(found) == steps and found == sorted(found, reverse=True)
    assert found[-1] >= 0 and found[0] <= 999


@given(steps=st.integers(1, 100), shift=st.floats(0.3, 10))
@settings(max_examples=50, deadline=None)
def test_flow_sampling_starts_at_pure_noise_and_falls(steps, shift):
    found = [level.time.item() for level in Levels(None, shift=shift).sampling(steps)]
    assert len(found) == steps and found[0] == 1
    assert all(a > b for a, b in pairwise(found)) and found[-1] > 0


def test_fifty_steps_are_those_of_the_papers():
    found = [level.time.item() for level in Levels(gaussian.ABAR).sampling(50)]
    assert (found[0], found[-3], found[-1], len(found)) == (981, 41, 1, 50)
    assert Levels(gaussian.ABAR).pure_noise.time.item() == 981


def test_levels_agree_with_the_schedule_and_with_flow_times():
    level = Levels(gaussian.ABAR).timestep(torch.tensor([0, 999]))
    torch.testing.assert_close(level.alpha.double() ** 2, gaussian.ABAR[[0, 999]], rtol=1e-6, atol=0)
    torch.testing.assert_close(level.alpha**2 + level.sigma**2, torch.ones(2))
    flow = Levels(None).timestep(0.25)
    assert (flow.alpha.item(), flow.sigma.item(), flow.time.item()) == (0.75, 0.25, 0.25)


def test_fractions_run_from_clean_to_noise():
    assert [Levels(gaussian.ABAR).fraction(f).time.item() for f in (0, 0.5, 1)] == [0, 500, 999]
    assert Levels(None).fraction(0.5).time.item() == 0.5


def test_a_short_schedule_has_pure_noise_too():
    assert Levels(gaussian.ABAR[:10]).pure_noise.time.item() == 9


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Levels(gaussian.ABAR).timestep(1000),
        lambda: Levels(gaussian.ABAR).timestep(-1),
        lambda: Levels(None).timestep(1.5),
        lambda: Levels(None).timestep(float("nan")),
        lambda: Levels(gaussian.ABAR).sampling(0),
        lambda: Levels(gaussian.ABAR).sampling(1001),
        lambda: Levels(None).sampling(0),
        lambda: Levels(None).fraction(1.1),
        lambda: Levels(gaussian.ABAR).timestep(torch.tensor([1, 2])).expand(3),
        lambda: perfect("epsilon").predict(noise()[0], perfect("epsilon").level(1), EMPTY),
        lambda: perfect("epsilon").predict(noise(), perfect("epsilon").level(torch.tensor([1, 2])), EMPTY),
        lambda: perfect("epsilon").predict(noise(), perfect("epsilon").level(1), conditions(3)),
        lambda: perfect("epsilon").latent_shape(64, 64),
        lambda: CallableDenoiser(torch.nn.Identity(), gaussian.ABAR, "score", empty=EMPTY, latent_shape=SHAPE),  # type: ignore[arg-type]
        lambda: CallableDenoiser(torch.nn.Identity(), None, "v", empty=EMPTY, latent_shape=SHAPE),
        lambda: CallableDenoiser(torch.nn.Identity(), gaussian.ABAR, "flow", empty=EMPTY, latent_shape=SHAPE),
        lambda: Prediction.from_output("score", noise(), noise(), Levels(None).timestep(0.5)),  # type: ignore[arg-type]
        lambda: Condition.cat([Condition(text=torch.zeros(1, 3, 5)), Condition(text=torch.zeros(1, 4, 5))]),
        lambda: Condition.cat([Condition(text=EMPTY), Condition(text=EMPTY, pooled=torch.zeros(1, 5))]),
    ],
)
def test_bad_input_is_refused_in_one_line(wrong):
    with pytest.raises(InputError) as caught:
        wrong()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_network_is_an_error(value):
    def network(x, t, condition):
        out = torch.zeros_like(x)
        out[0, 0, 0, 0] = value
        return out

    denoiser = CallableDenoiser(network, gaussian.ABAR, empty=EMPTY, latent_shape=SHAPE)
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        denoiser.predict(noise(), denoiser.level(41), EMPTY)


def test_gradients_flow_only_when_asked_for():
    denoiser, x = perfect("v"), noise(1).requires_grad_()
    assert not denoiser.predict(x, denoiser.level(500), EMPTY).x0.requires_grad
    denoiser.predict(x, denoiser.level(500), EMPTY, grad=True).x0.sum().backward()
    alpha, sigma = gaussian.levels(torch.tensor([500]), "v")
    slope = alpha * gaussian.STD**2 / (alpha**2 * gaussian.STD**2 + sigma**2)
    assert x.grad is not None
    torch.testing.assert_close(x.grad.double(), slope.expand_as(x), **CLOSE)


def test_conditions_are_indexed_and_joined_by_rows():
    both = Condition.cat([Condition.of(conditions(2)), Condition.of(conditions(1))])
    assert len(both) == 3 and both.tensors["text"][:, 0, 0].tolist() == [0, 0.5, 0]
    assert both[[1, 1]].tensors["text"][:, 0, 0].tolist() == [0.5, 0.5]


def test_levels_are_indexed_and_joined_by_rows():
    levels = Levels(gaussian.ABAR)
    both = NoiseLevel.cat([levels.timestep(7), levels.timestep(torch.tensor([8, 9]))])
    assert both.time.tolist() == [7, 8, 9] and both[1:].time.tolist() == [8, 9]
    assert levels.timestep(7).expand(3).time.tolist() == [7, 7, 7]


def test_fingerprints_tell_weights_and_settings_apart():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 3)

    def of(*modules, family="family"):
        return fingerprint(weights_of(modules), family, torch.float32)

    first = of(layer)
    assert first == of(layer) and len(first) == 64
    assert first != of(layer, family="other")
    assert first != of(layer, layer)
    with torch.no_grad():
        layer.weight[2, 2] += 1
    assert first != of(layer)


def test_fingerprints_are_the_same_for_every_host():
    # names, order and shapes of the same weights differ; so does the precision that they are kept in
    weights = [torch.arange(6.0).view(2, 3, 1, 1), torch.ones(4)]
    other = [torch.ones(4).half(), torch.arange(6.0).view(2, 3), torch.arange(5)]
    assert fingerprint(weights, "family") == fingerprint(other, "family")
    assert fingerprint(weights, "family") != fingerprint([weights[0], torch.ones(5)], "family")


def test_texts_of_different_length_share_a_tensor_when_they_say_so():
    short, long = (Condition(text=torch.ones(1, length, 2), tokens=torch.tensor([length])) for length in (3, 5))
    both = Condition.cat([short, long])
    assert both.tensors["text"].shape == (2, 5, 2) and both.tensors["tokens"].tolist() == [3, 5]
    assert both.tensors["text"][0, 3:].eq(0).all() and both.tensors["text"].sum() == 16
    with pytest.raises(InputError, match="different shapes"):
        Condition.cat([Condition(text=short.tensors["text"]), Condition(text=long.tensors["text"])])


def test_a_function_is_known_by_its_answers():
    assert perfect("epsilon").fingerprint == perfect("epsilon").fingerprint != perfect("v").fingerprint
    named = CallableDenoiser(
        lambda x, t, c: x.sin(), gaussian.ABAR, empty=EMPTY, latent_shape=SHAPE, fingerprint="mine"
    )
    assert named.fingerprint == "mine"


# --- texts ---


def readable(encode=lambda texts: torch.tensor([[[float(len(text))] * 5] * 3 for text in texts]), **options):
    def network(x, t, condition):
        return x * 0.9 + condition[:, :1, :1, None] * 0.01

    return CallableDenoiser(network, gaussian.ABAR, empty=EMPTY, latent_shape=SHAPE, encode=encode, **options)


def test_a_guard_of_a_function_checks_texts_when_it_is_told_how_to_read_them():
    guard = Guard(readable())
    report = guard.check("a cat")
    assert report.verdict == "uncalibrated" and report.note is None and report.score > 0
    assert guard.check("a cat on a mat").score > report.score
    as_condition = Guard(readable(lambda texts: Condition(text=readable().encode(texts).tensors["text"])))
    assert as_condition.check("a cat").score == report.score
    assert readable().significance("a cat", [(0, 1)], lambda c, grad: c.tensors["text"].sum((1, 2))) == [30.0]


def test_without_that_it_says_so_in_one_line():
    with pytest.raises(InputError, match="cannot read texts: give it encode=") as caught:
        Guard(readable(None)).check("a cat")
    assert "\n" not in str(caught.value)
    noise = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0))
    assert Guard(readable(None)).judge([None], Condition(text=noise))[0].verdict == "uncalibrated"


@pytest.mark.parametrize("wrong", [None, "text", torch.zeros(2, 3, 5), [torch.zeros(1, 3, 5)]])
def test_an_encoder_that_gives_something_else_is_told(wrong):
    with pytest.raises(InputError, match="one row per text, 1 for this call"):
        readable(lambda texts: wrong).encode("a cat")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *(("\ud800", "not valid Unicode"), ("a cat \udcff", "not valid Unicode"), ("a\0cat", "NUL"), ("\0", "NUL")),
        *(("\x01\x1b\x7f", "no character that can be seen"), ("\n\t", "no character that can be seen")),
        *(
            ("\u200b\u202e", "no character"),
            ("a" * 20_001, "20001 characters"),
            ("a cat " * 400_000, "2400000 characters"),
        ),
    ],
)
def test_what_is_no_prompt_is_told_in_one_line_and_never_reaches_a_tokenizer(text, reason):
    pipe = build("sd1")
    for denoiser in (readable(lambda texts: pytest.fail("was read")), to_denoiser(pipe)):
        for asked, which in ((text, "the prompt "), (["a cat", text], "prompt 2 of 2 ")):
            with pytest.raises(InputError) as caught:
                denoiser.encode(asked)
            message = str(caught.value)
            assert message.startswith(which) and reason in message and message.isprintable() and len(message) < 200
    assert to_denoiser(pipe).truncated("a cat " * 400_000)


@pytest.mark.parametrize("text", ["", "  ", "a\ncat\t\x1b", "猫 🐈\u200d", "a" * 20_000])
def test_odd_texts_are_prompts(text):
    assert len(readable().encode(text)) == 1
