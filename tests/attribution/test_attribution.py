"""Who made this image: toy makers whose right answer is known."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cryptomnesia import image_model
from cryptomnesia.attribution import (
    NONE,
    Candidate,
    Signatures,
    attribute,
    calibrate_attribution,
    load_calibration,
    save_calibration,
)
from cryptomnesia.attribution.candidates import check_candidates
from cryptomnesia.attribution.evidence import Evidence, gather
from cryptomnesia.attribution.gaussian import Gaussian, shrunk_covariance
from cryptomnesia.attribution.inversion import invert
from cryptomnesia.attribution.noise_errors import error_levels
from cryptomnesia.errors import CalibrationError, InputError, NotApplicable, OutOfMemory

from ..helpers.makers import SIZE, Maker, candidate
from ..helpers.toy import linear

NAMES = ("ada", "bo", "cy")


@pytest.fixture(scope="module")
def makers():
    return {name: Maker(seed) for seed, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def pool(makers):
    return [candidate(name, maker) for name, maker in makers.items()]


@pytest.fixture(scope="module")
def calibration(makers, pool):
    same = {name: ["a pattern"] * 12 for name in makers}
    return calibrate_attribution({name: maker.images(12) for name, maker in makers.items()}, pool, subjects=same)


def test_each_image_goes_to_its_maker(makers, pool, calibration):
    for name, maker in makers.items():
        found = attribute(maker.images(6, seed=5), pool, calibration)
        assert [answer.decision for answer in found].count(name) >= 5
        for answer in found:
            assert sum(answer.probabilities.values()) == pytest.approx(1)
            assert list(answer.probabilities) == [*NAMES, NONE]
            assert 0 <= answer.margin <= 1 and 0 < answer.p_value <= 1
            assert json.loads(json.dumps(answer.to_dict()))["decision"] == answer.decision
            assert answer.fingerprints == {name: maker.fingerprint for name, maker in makers.items()}


def test_an_unseen_models_images_are_none_of_these(pool, calibration):
    found = attribute(Maker(99).images(6), pool, calibration)
    assert [answer.decision for answer in found].count(NONE) >= 5
    assert all(answer.probabilities[NONE] > 0.5 for answer in found if answer.decision == NONE)


def test_decision_and_probability_of_none_agree(makers, pool, calibration):
    images = [*makers["ada"].images(8, seed=9), *Maker(50).images(4)]
    for answer in attribute(images, pool, calibration):
        assert (answer.decision == NONE) == (answer.probabilities[NONE] >= 0.5)


def test_the_headline_says_how_sure_it_is(makers, pool, calibration):
    answer = attribute(makers["ada"].images(1, seed=5)[0], pool, calibration)[0]
    assert answer.headline() == "Likely made by ada"
    unsure = replace(answer, probabilities={**answer.probabilities, "ada": 0.4})
    assert unsure.headline() == "Not clear, perhaps made by ada"
    assert replace(answer, decision="uncalibrated").headline() == "No verdict: not calibrated"


def test_without_calibration_there_is_no_verdict(makers, pool):
    answer = attribute(makers["bo"].images(1)[0], pool)[0]
    assert answer.decision == "uncalibrated" and not answer.probabilities and answer.p_value is None
    assert min(answer.distances, key=lambda name: answer.distances[name]) == "bo"
    with pytest.raises(InputError, match="no probabilities to draw"):
        answer.plot()


def test_prompts_are_evidence(makers, pool):
    prompt = "a long prompt"
    known = {name: maker.images(10, prompt=prompt) for name, maker in makers.items()}
    prompts = {name: [prompt] * 10 for name in makers}
    calibration = calibrate_attribution(known, pool, prompts=prompts)
    assert "prompt" in calibration.groups
    found = attribute(makers["cy"].images(3, seed=2, prompt=prompt), pool, calibration, prompts=prompt)
    assert [answer.decision for answer in found] == ["cy"] * 3
    with pytest.raises(InputError, match="made with prompts"):
        attribute(makers["cy"].images(1), pool, calibration)
    with pytest.raises(InputError, match="2 prompts do not fit 1"):
        attribute(makers["cy"].images(1), pool, calibration, prompts=["a", "b"])


def test_candidates_may_have_other_latents_and_autoencoders(makers):
    mixed = {"ada": makers["ada"], "other": Maker(7, fold=2), "blurry": Maker(8, blur=0.7)}
    pool = [candidate(name, maker) for name, maker in mixed.items()]
    calibration = calibrate_attribution({name: maker.images(10) for name, maker in mixed.items()}, pool)
    for name, maker in mixed.items():
        assert attribute(maker.images(1, seed=3)[0], pool, calibration)[0].decision == name


def test_error_levels_are_mean_squares_of_a_known_denoiser():
    maker = Maker(0)
    z = maker.encode_image(torch.stack(maker.images(2)))
    found = error_levels(maker, z, maker.encode(["ab", "abc"]))
    assert {name: tuple(values.shape) for name, values in found.items()} == {
        "empty": (2, 9),
        "clean": (2, 5),
        "prompt": (2, 28),
        "pull": (2, 14),
        "bands": (2, 56),
        "coherence": (2, 12),
    }
    level = maker.level(1)
    noise = maker.predict(z, level, maker.empty).noise
    torch.testing.assert_close(found["clean"][:, 0], noise.double().square().mean((1, 2, 3)).log())
    # guided errors lie where the formula says
    prompted = maker.predict(z, level, maker.encode(["ab", "abc"])).noise
    guided = (noise + 7.5 * (prompted - noise)).double().square().mean((1, 2, 3)).log()
    torch.testing.assert_close(found["prompt"][:, 19], guided, rtol=1e-4, atol=1e-4)
    # the pull and the error without the prompt at the same level, the first of the low ones
    turned = torch.cosine_similarity(noise.flatten(1), (noise - prompted).flatten(1))
    torch.testing.assert_close(found["pull"][:, 9].float(), turned, rtol=1e-4, atol=1e-4)
    # bands share out the energy, and neighbouring levels are compared in order
    energy = noise.double().square().sum((1, 2, 3))
    torch.testing.assert_close(found["bands"].exp().view(2, 14, 4)[:, 9].sum(1), energy)
    next_one = maker.predict(z, maker.levels.sampling(50)[48], maker.empty).noise
    alike = torch.cosine_similarity(noise.flatten(1), next_one.flatten(1))
    torch.testing.assert_close(found["coherence"][:, 0].float(), alike, rtol=1e-4, atol=1e-4)


def test_numbers_do_not_hang_on_how_many_images_are_asked_about(makers, pool):
    images = [image[None] for image in makers["ada"].images(3)]
    whole, one = gather(images, pool), gather(images[1:2], pool)
    for name, values in one.groups.items():
        torch.testing.assert_close(values[0], whole.groups[name][1], rtol=1e-4, atol=1e-5)


def test_every_group_can_be_gathered():
    pool, makers = [], {name: Maker(seed, fold=2) for seed, name in enumerate(NAMES)}
    for name, maker in makers.items():
        z = maker.encode_image(torch.stack(maker.images(2)))
        own = Signatures.measure(maker, z, name, plan="1step")
        pool.append(Candidate(name, maker, size=(SIZE, SIZE), library=own))
    images = [image[None] for image in makers["bo"].images(2, seed=4)]
    found = gather(images, pool, groups=("signature", "inversion", "empty"))
    assert {name: tuple(v.shape) for name, v in found.groups.items()} == {
        "empty": (2, 3, 9),
        "inversion": (2, 3, 2),
        "signature": (2, 3, 1),
    }
    assert (found.groups["inversion"][..., 1].argmin(1) == 1).all()
    other = Signatures.measure(makers["cy"], makers["cy"].encode_image(images[0]), "cy", plan="5step")
    with pytest.raises(InputError, match="'ada' has plan 1step, 'cy' has 5step"):
        gather(images, [*pool[:2], replace(pool[2], library=other)], groups=("signature",))


def test_inversion_finds_the_latent_that_was_decoded():
    maker = Maker(3, blur=0.6)
    images = torch.stack(maker.images(2))
    z = maker.encode_image(images)
    blurred = maker.decode(z)
    found = invert(maker, blurred, iterations=20)
    assert (found.last_gap < found.first_gap / 20).all()
    assert (found.latents - z).square().mean() < (found.encoded - z).square().mean() / 4
    none = invert(maker, blurred, iterations=0)
    torch.testing.assert_close(none.latents, none.encoded)


@pytest.mark.parametrize("part", ["encode_image", "decode"])
def test_an_autoencoder_that_overflows_is_named(part, monkeypatch):
    maker = Maker(3)
    whole = getattr(maker, part)
    monkeypatch.setattr(maker, part, lambda x: whole(x) * float("nan"))
    with pytest.raises(InputError, match="autoencoder answered with NaN"):
        invert(maker, torch.rand(1, 3, SIZE, SIZE))


def test_gaussian_distance_and_shrinkage():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5])
    maker = torch.arange(4000) % 2
    x[maker == 1] += 3
    model = Gaussian.learn(x, maker, 2)
    assert (model.distance(x).argmin(1) == maker).double().mean() > 0.95
    assert float(model.distance(x).gather(1, maker[:, None]).mean()) == pytest.approx(3, rel=0.05)
    few = torch.randn(10, 40, generator=generator, dtype=torch.float64)
    assert torch.linalg.eigvalsh(shrunk_covariance(few)).min() > 0.05


def test_calibration_file_keeps_every_number(calibration, pool, makers, tmp_path):
    path = tmp_path / "toy.attribution.safetensors"
    save_calibration(calibration, path)
    again = load_calibration(path)
    images = makers["ada"].images(2, seed=8)
    for ours, theirs in zip(attribute(images, pool, calibration), attribute(images, pool, again), strict=True):
        assert theirs.decision == ours.decision
        assert theirs.probabilities == pytest.approx(ours.probabilities)
    assert torch.equal(again.gaussian.precision, calibration.gaussian.precision)
    assert (again.names, again.threshold, again.slope) == (calibration.names, calibration.threshold, calibration.slope)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with pytest.raises(InputError, match=r"saved as NAME\.attribution\.safetensors"):
        save_calibration(calibration, tmp_path / "toy.json")


def test_broken_calibration_files_cost_one_line(calibration, tmp_path):
    good = tmp_path / "good.attribution.safetensors"
    save_calibration(calibration, good)
    tensors = load_file(good)
    bad = tmp_path / "bad.attribution.safetensors"
    bad.write_bytes(good.read_bytes()[:200])
    with pytest.raises(InputError, match="no complete safetensors file"):
        load_calibration(bad)
    save_file(tensors, bad, {"schema": "cryptomnesia/attribution/0"})
    with pytest.raises(CalibrationError, match="of this version"):
        load_calibration(bad)
    save_file(tensors, bad, {"schema": "cryptomnesia/attribution/2"})
    with pytest.raises(CalibrationError, match="odd parts"):
        load_calibration(bad)


def test_a_calibration_is_for_its_candidates(calibration, pool, makers):
    image = makers["ada"].images(1)[0]
    with pytest.raises(CalibrationError, match="is for the candidates ada, bo, cy, not bo, ada, cy"):
        attribute(image, [pool[1], pool[0], pool[2]], calibration)
    with pytest.raises(CalibrationError, match="'cy' is another model"):
        attribute(image, [*pool[:2], candidate("cy", Maker(77))], calibration)
    with pytest.raises(InputError, match="made without prompts"):
        attribute(image, pool, calibration, prompts="a")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "empty"),
        (("a", "b", "a"), "two candidates are called 'a'"),
        ((NONE,), "cannot be called"),
        ((" ",), "cannot"),
    ],
)
def test_candidate_lists(names, words):
    with pytest.raises(InputError, match=words):
        check_candidates([candidate(name, Maker(0)) for name in names])


def test_other_bad_input(pool, makers):
    image = makers["ada"].images(1)[0]
    with pytest.raises(InputError, match="no image was given"):
        attribute([], pool)
    with pytest.raises(NotApplicable, match="has no autoencoder"):
        attribute(image, [Candidate("bare", linear(), size=(32, 32))])
    with pytest.raises(InputError, match="image size of the candidate 'ada' is not known"):
        attribute(image, [Candidate("ada", makers["ada"])])
    with pytest.raises(InputError, match="unknown evidence looks"):
        gather([image[None]], pool, groups=("looks",))
    with pytest.raises(InputError, match="needs the signatures of ada, bo, cy"):
        gather([image[None]], pool, groups=("signature",))
    with pytest.raises(InputError, match="3 images by 'ada' are too few"):
        calibrate_attribution({name: maker.images(3) for name, maker in makers.items()}, pool)
    with pytest.raises(InputError, match="each of ada, bo, cy, not ada"):
        calibrate_attribution({"ada": makers["ada"].images(9)}, pool)
    with pytest.raises(InputError, match="ada alone cannot be told from others"):
        calibrate_attribution({"ada": makers["ada"].images(9)}, pool[:1])
    with pytest.raises(InputError, match=r"an error rate of 0\.001: give 999 or more"):
        calibrate_attribution({name: maker.images(8) for name, maker in makers.items()}, pool, alpha=0.001)
    with pytest.raises(InputError, match="alpha is a share between 0 and 1, not 2"):
        calibrate_attribution({name: maker.images(8) for name, maker in makers.items()}, pool, alpha=2)
    shifted = {"ada": ["a"] * 7, "bo": ["a"] * 9, "cy": ["a"] * 8}  # as many in all
    with pytest.raises(InputError, match="7 prompts do not fit 8 images by 'ada'"):
        calibrate_attribution({name: maker.images(8) for name, maker in makers.items()}, pool, prompts=shifted)


def test_evidence_of_nan_is_refused(pool):
    from cryptomnesia.attribution.combination import learn

    evidence = Evidence(NAMES, {"empty": torch.full((24, 3, 9), float("nan"), dtype=torch.float64)})
    with pytest.raises(InputError, match="NaN or infinity"):
        learn(evidence, [0, 1, 2] * 8, [""] * 3)


def test_evidence_that_compares_no_candidates_is_not_enough(makers, pool):
    images = {name: maker.images(8) for name, maker in makers.items()}
    with pytest.raises(InputError, match="bands compare no candidates"):
        calibrate_attribution(images, pool, groups=("bands",))


def test_bars_show_the_likeliest_first(makers, pool, calibration):
    answer = attribute(makers["bo"].images(1, seed=6)[0], pool, calibration)[0]
    picture = answer.plot()
    assert isinstance(picture, Image.Image) and picture.width == 620
    pixels = np.asarray(picture).reshape(-1, 3)
    assert (pixels == (33, 104, 109)).all(1).sum() > 1000  # the bar of the one that is named


def _batches(maker, images, monkeypatch, most=None):
    """How many images the autoencoder is given at once, where it has memory for `most`."""
    seen, whole = [], type(maker).decode

    def decode(latent):
        seen.append(len(latent))
        if most is not None and len(latent) > most:
            raise OutOfMemory("no memory")
        return whole(maker, latent)

    monkeypatch.setattr(maker, "decode", decode)
    found = gather(images, [candidate("ada", maker)], groups=("autoencoder",)).groups["autoencoder"]
    return seen, found


def test_an_autoencoder_is_given_as_many_pixels_as_fit(makers, monkeypatch):
    maker = makers["ada"]
    images = [image[None] for image in maker.images(6)]
    all_at_once, expected = _batches(maker, images, monkeypatch)
    assert set(all_at_once) == {6}
    monkeypatch.setattr(image_model, "PIXELS", 4 * SIZE * SIZE + 1)
    bounded, found = _batches(maker, images, monkeypatch)
    assert set(bounded) == {3} and len(bounded) == 2 * len(all_at_once)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    halved, found = _batches(maker, images, monkeypatch, most=2)
    assert halved[:2] == [3, 1] and len(halved) == 1 + 6 * len(all_at_once)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(OutOfMemory):
        _batches(maker, images, monkeypatch, most=0)
