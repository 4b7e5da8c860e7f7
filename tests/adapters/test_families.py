"""Every family of pipelines: what its pipeline feeds the network, we feed; what its network means, we understand; and a
guard checks, attaches, rewrites and locates."""

import inspect
import warnings
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.loading import load_pipeline
from cryptomnesia.adapters.network_calls import read_call, watched
from cryptomnesia.adapters.pipeline_call import initial_noise, parameters
from cryptomnesia.adapters.sampling import TextToImage
from cryptomnesia.calibration import Calibration
from cryptomnesia.condition import mean_text
from cryptomnesia.denoiser import Condition
from cryptomnesia.errors import InputError, MemorizationWarning
from cryptomnesia.mitigation.objective import Measure
from cryptomnesia.signals.guidance import Guidance

from ..helpers import gaussian
from ..helpers.families import CHANNELS, SIDE, Family, Fed, families, same
from ..helpers.guarded import of_a_few
from ..helpers.recording import CLOSE

FAMILIES = families()
SHAPE = (CHANNELS, SIDE, SIDE)
every = pytest.mark.parametrize("name", FAMILIES)
every_attached = pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.attached])


def noise(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, *SHAPE, generator=torch.Generator().manual_seed(seed))


def times(family: Family) -> torch.Tensor:
    return torch.tensor([1.0, 0.6, 0.1]) if family.kind == "flow" else torch.tensor([981, 500, 41])


def fed(family: Family, **options: Any) -> tuple[Any, Fed]:
    pipe = family.made()
    with Fed(getattr(pipe, family.network)) as seen:
        family.call(pipe, **options)
    return pipe, seen


def read(family: Family, denoiser: Any, arguments: dict[str, Any], returned: Any) -> Any:
    """What a call says, even where it says more than a check knows."""
    return (partial(read_call, denoiser) if family.attached else denoiser.read_call)(arguments, returned)


@cache
def known_of(name: str) -> Calibration:
    """A calibration of the family's small pipeline, which is the same whenever it is made."""
    return of_a_few(to_denoiser(FAMILIES[name].made()), SHAPE)


def calibrated(name: str, score: float) -> Calibration:
    """Flags whatever scores higher."""
    return replace(known_of(name), scores=[score] * known_of(name).n)


# --- the network's convention ---


@every_attached
@pytest.mark.parametrize("guided", [False, True])
def test_what_the_pipeline_feeds_its_network_we_read_and_feed(name: str, guided: bool):
    family = FAMILIES[name]
    if guided and family.guided is None:
        return
    pipe, seen = fed(family, **((family.guided or {}) if guided else {}))
    denoiser: Any = to_denoiser(pipe)
    assert len(seen.calls) >= 2
    for arguments, returned in zip(seen.calls, seen.returned, strict=True):
        x, time, condition, raw = read(family, denoiser, arguments, returned)
        assert x.shape[1:] == SHAPE and raw.shape == x.shape
        rows = list(range(len(x)))
        order = [*rows[len(x) // 2 :], *rows[: len(x) // 2]] if guided and family.prompts_first else rows
        with Fed(getattr(pipe, family.network)) as ours:
            found = denoiser.predict(x[order], denoiser.level(time).expand(len(x))[order], condition[order])
        (again,), arguments = ours.calls, family.own(arguments)
        wrong = {n for n in (arguments.keys() | again.keys()) if not same(arguments.get(n), again.get(n))}
        assert not wrong, {n: (arguments.get(n), again.get(n)) for n in wrong}
        torch.testing.assert_close(found.raw, raw[order].float(), **CLOSE)


@every_attached
def test_what_the_pipeline_makes_of_a_prompt_we_make_of_it(name: str):
    family = FAMILIES[name]
    pipe, seen = fed(family)
    denoiser: Any = to_denoiser(pipe)
    condition, expected = read(family, denoiser, seen.calls[0], seen.returned[0])[2], denoiser.encode("a cat")
    assert len(condition) >= 1 and set(expected.tensors) <= set(condition.tensors)
    for key, tensor in expected.tensors.items():
        torch.testing.assert_close(condition.tensors[key][-1:].float(), tensor.float(), **CLOSE)
    # a calibration by words reads the same of it, alone or in company
    words = mean_text(expected)
    assert words is not None
    together = mean_text(denoiser.encode(["a cat", "a big red dog in a house with many green windows"]))
    for other in (mean_text(condition)[-1:], together[:1]):  # type: ignore[index]
        torch.testing.assert_close(other, words, **CLOSE)


@every
def test_predictions_are_exact_for_gaussian_data(name: str):
    family, mean = FAMILIES[name], noise(1, seed=5) * 2
    denoiser, x, t = to_denoiser(family.perfect(mean)), noise(3), times(family)
    found = denoiser.predict(x, denoiser.level(t), denoiser.empty)
    x0, eps = gaussian.split(x, t, family.kind, mean)
    torch.testing.assert_close(found.x0.double(), x0, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.noise.double(), eps, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.sampled])
def test_the_pipeline_samples_the_data_that_the_perfect_network_knows(name: str):
    family, mean = FAMILIES[name], noise(1, seed=5) * 2
    pipe, kept = family.perfect(mean), []
    denoiser: Any = to_denoiser(pipe)
    with Fed(getattr(pipe, family.network)) as seen:
        family.call(pipe, steps=30)
    x, time, _, raw = read(family, denoiser, seen.calls[-1], seen.returned[-1])
    kept = denoiser.predict(x[-1:], denoiser.level(time.reshape(-1)[-1:]), denoiser.empty).x0
    assert raw.shape == x.shape and 0.3 < (kept - mean).std() < 0.65 and (kept - mean).mean().abs() < 0.15


@every
def test_rows_with_their_own_levels_and_conditions_equal_separate_calls(name: str):
    family = FAMILIES[name]
    denoiser: Any = to_denoiser(family.made())
    x, level = noise(3), denoiser.level(times(family))
    condition = Condition.cat([denoiser.encode(["a cat", "two dogs and a horse"]), denoiser.empty])
    together = denoiser.predict(x, level, condition)
    for row in range(3):
        alone = denoiser.predict(x[row : row + 1], level[[row]], condition[[row]])
        torch.testing.assert_close(together.raw[row], alone.raw[0], **CLOSE)
    assert together.raw.std() > 1e-3 and not torch.equal(together.raw[0], together.raw[1])


@every_attached
def test_other_sizes_are_those_of_the_pipeline(name: str):
    family = FAMILIES[name]
    side = family.pixels
    pipe, seen = fed(family, width=2 * side)
    denoiser: Any = to_denoiser(pipe)
    x = read(family, denoiser, seen.calls[0], seen.returned[0])[0]
    assert tuple(x.shape[1:]) == denoiser.latent_shape(side, 2 * side)
    assert (tuple(x.shape[1:]) == (CHANNELS, SIDE, 2 * SIDE)) != family.resized
    assert denoiser.pixels((CHANNELS, SIDE, 2 * SIDE)) == (side, 2 * side)
    image = denoiser.decode(noise(1))
    assert image.shape == (1, 3, side, side) and denoiser.encode_image(image).shape == (1, *SHAPE)


# --- a guard ---


@every
def test_a_guard_checks(name: str):
    family = FAMILIES[name]
    guard = Guard(family.made())
    report = guard.check("a cat", **family.size)
    assert report.verdict == "uncalibrated" and report.score is not None and report.score > 0
    assert report.reference == guard.denoiser.reference == family.reference
    nothing = guard.check("", **family.size).score
    assert (nothing == pytest.approx(0, abs=1e-4)) == family.blank


@every_attached
@pytest.mark.parametrize("guided", [False, True])
def test_an_attached_guard_measures_what_a_check_would(name: str, guided: bool):
    family = FAMILIES[name]
    if guided and family.guided is None:
        return
    options = dict(family.guided or {}) if guided else {}
    pipe, calls = family.made(), []
    guard = Guard(pipe, calibrated(name, 1e9))
    denoiser: Any = guard.denoiser
    with watched(denoiser, lambda arguments, output: calls.append(read_call(denoiser, arguments, output))):
        expected = family.call(pipe, **options).images
    with guard.attached():
        made = family.call(pipe, **options)
    assert torch.equal(torch.as_tensor(made.images), torch.as_tensor(expected))
    (report,) = made.memorization
    assert report.verdict == "clear", report.reason
    start = calls[0][0][-1:]
    expected_iso = Guidance(denoiser, start)(denoiser.encode("a cat")).flatten().norm()
    assert report.iso == pytest.approx(expected_iso.item(), rel=1e-3)
    assert report.forward_rows <= 2


@every_attached
def test_a_rewritten_prompt_is_what_is_sampled(name: str, monkeypatch: pytest.MonkeyPatch):
    family = FAMILIES[name]
    pipe = family.made()
    denoiser: Any = to_denoiser(pipe)
    known = calibrated(name, 1e9)
    highest = denoiser_score(family, known, "a cat")
    known = replace(known, scores=[highest - 1e-3] * known.n)  # flags "a cat", and hardly anything else
    # random weights keep no promise that a rewriting holds
    monkeypatch.setattr(Measure, "holds", lambda self, alpha: torch.ones_like(self.p_value, dtype=torch.bool))
    guard = Guard(pipe, known, policy="rewrite", rewriter=lambda prompt: ["zz"], unverified="allow")
    calls: list[tuple[Any, ...]] = []
    with guard.attached(), warnings.catch_warnings():
        warnings.simplefilter("ignore", MemorizationWarning)
        with watched(denoiser, lambda arguments, output: calls.append(read_call(denoiser, arguments, output))):
            made = family.call(pipe)
    about = made.memorization[0].mitigation
    assert about is not None and about.original == "a cat" != about.rewritten
    # of the last step, the prompt's call: the negative prompt's, if it has one of its own, comes behind it
    last = next(call[2] for call in calls if torch.equal(call[1], calls[-1][1]))
    for key, tensor in denoiser.encode(about.rewritten).tensors.items():
        torch.testing.assert_close(last.tensors[key][-1:].float(), tensor.float(), **CLOSE)


def denoiser_score(family: Family, known: Calibration, prompt: str) -> float:
    """The score on the noise that the pipeline draws."""
    pipe, seen = fed(family)
    denoiser: Any = to_denoiser(pipe)
    x = read_call(denoiser, seen.calls[0], seen.returned[0])[0][-1:]
    return known.combination.score(Guidance(denoiser, x).spectrum(denoiser.encode(prompt))).item()


@every_attached
def test_noise_that_is_given_is_what_the_pipeline_starts_from(name: str):
    family, chosen = FAMILIES[name], noise(1, seed=3)
    denoiser: Any = to_denoiser(family.made())
    pipe, seen = fed(family, latents=denoiser.packed(chosen))
    denoiser = to_denoiser(pipe)
    start = read_call(denoiser, seen.calls[0], seen.returned[0])[0][-1:]
    torch.testing.assert_close(initial_noise(pipe, start), chosen, **CLOSE)


@pytest.mark.parametrize("name", ["flux", "flux-2"])
def test_a_chosen_noise_is_what_is_sampled(name: str, monkeypatch: pytest.MonkeyPatch):
    family = FAMILIES[name]
    pipe = family.made()
    known = calibrated(name, 1e9)
    known = replace(known, scores=[denoiser_score(family, known, "a cat") - 1e-3] * known.n)
    monkeypatch.setattr(Measure, "holds", lambda self, alpha: torch.ones_like(self.p_value, dtype=torch.bool))
    with Guard(pipe, known, policy="reseed", unverified="allow").attached(), warnings.catch_warnings():
        warnings.simplefilter("ignore", MemorizationWarning)
        made = family.call(pipe)
    about = made.memorization[0].mitigation
    assert about is not None and about.method == "reseed" and about.held
    assert not torch.equal(torch.as_tensor(made.images), torch.as_tensor(family.call(pipe).images))


@every_attached
def test_an_image_is_located(name: str):
    family = FAMILIES[name]
    guard = Guard(family.made())
    location = guard.locate("a cat", steps=3, **family.size)
    assert location.map.ndim == 2 and torch.isfinite(location.map).all()


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if not family.attached])
def test_what_cannot_be_attached_says_why_and_samples_the_same(name: str):
    family = FAMILIES[name]
    expected, guard = family.call(family.made()).images, Guard(family.made(), unverified="allow")
    with guard.attached():
        made = family.call(guard.denoiser.pipe)
    (report,) = made.memorization
    assert report.verdict == "not applicable" and "guard.check()" in report.reason and "\n" not in report.reason
    assert torch.equal(torch.as_tensor(made.images), torch.as_tensor(expected))
    with pytest.raises(InputError, match="given an image beside the prompt"):
        guard.locate("a cat", steps=3, **family.size)


@every
def test_a_folder_that_was_saved_is_the_same_model(name: str, tmp_path: Path):
    pipe = FAMILIES[name].made()
    pipe.save_pretrained(tmp_path)
    loaded: Any = to_denoiser(load_pipeline(str(tmp_path)))
    saved: Any = to_denoiser(pipe)
    assert type(loaded.pipe) is type(pipe) and loaded.fingerprint == saved.fingerprint
    answers = [d.predict(noise(1), d.levels.pure_noise, d.encode("a cat")).raw for d in (loaded, saved)]
    torch.testing.assert_close(*answers, **CLOSE)


@every_attached
def test_images_of_texts_are_those_of_a_plain_call(name: str):
    family = FAMILIES[name]
    pipe, prompts = family.made(), ["a cat", "two dogs"]
    maker, denoiser = TextToImage(pipe, steps=2, **family.size), to_denoiser(pipe)
    host: Any = denoiser
    found = maker.images(prompts, [5, 6], per_call=1)
    binned = {"use_resolution_binning": False} if "use_resolution_binning" in parameters(type(pipe).__call__) else {}
    for seed, prompt, image in zip((5, 6), prompts, found, strict=True):
        generator = torch.Generator().manual_seed(seed)
        given: dict[str, Any] = {"prompt": prompt, "num_inference_steps": 2, "generator": generator}
        assert (image == pipe(**given, **family.size, **binned, output_type="np").images[0]).all()
    assert maker.guidance >= 0
    prompt, empty = host.encode("a cat"), denoiser.empty
    embeddings = lambda count: host.as_arguments(prompt[[0] * count], empty[[0] * count])  # noqa: E731
    again = maker.images(["", ""], [5, 5], per_call=1, embeddings=embeddings)
    assert abs(again[0] - found[0]).max() < 1e-3


# --- what is no such pipeline ---


@every
@pytest.mark.parametrize("kind", ["text_encoder", "tokenizer"])
def test_without_text_encoder_or_tokenizer_it_says_so(name: str, kind: str):
    family = FAMILIES[name]
    pipe = family.made()
    for part in [part for part in pipe.components if part.startswith(kind)]:
        setattr(pipe, part, None)
    with pytest.raises(InputError, match=f"no {kind.replace('_', ' ')}"):
        Guard(pipe).check("a cat", **family.size)


@every
def test_another_familys_network_inside_is_told(name: str):
    from diffusers import UNet1DModel

    family = FAMILIES[name]
    pipe = family.made()
    blocks: dict[str, Any] = {"down_block_types": ("DownBlock1D",) * 2, "up_block_types": ("UpBlock1D",) * 2}
    setattr(pipe, family.network, UNet1DModel(block_out_channels=(32, 32), **blocks))
    with pytest.raises(InputError, match="UNet1DModel"):
        Guard(pipe).check("a cat", **family.size)


def test_every_registered_pipeline_is_one_of_these():
    from cryptomnesia.adapters import supported

    built = {base.__name__ for family in FAMILIES.values() for base in inspect.getmro(type(family.made()))}
    missing = {name for name in supported() if name not in built and "Img2Img" not in name}
    assert not missing
