"""Prompts guessed from captions, by toy makers that draw a caption by its length."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from cryptomnesia.attribution import attribute, calibrate_attribution, load_calibration, save_calibration
from cryptomnesia.attribution.guessing import Captions
from cryptomnesia.errors import CalibrationError, InputError

from ..helpers.makers import Maker, candidate

NAMES = ("ada", "bo", "cy")
LISTED = ["a" * n for n in range(20)]  # more than are tried on an image
PROMPTS = [LISTED[n] for n in (2, 7, 11, 18, 5, 14, 9, 16)]


@pytest.fixture(scope="module")
def makers():
    made = {name: Maker(seed) for seed, name in enumerate(NAMES)}
    for maker in made.values():
        maker.turn = made["ada"].turn  # all draw a caption's length alike
    return made


@pytest.fixture(scope="module")
def pool(makers):
    return [candidate(name, maker) for name, maker in makers.items()]


def drawn(maker, prompts, seed):
    return [maker.images(1, seed=seed + i, prompt=prompt)[0] for i, prompt in enumerate(prompts)]


@pytest.fixture(scope="module")
def calibration(makers, pool):
    images = {name: drawn(maker, PROMPTS, 10 * number) for number, (name, maker) in enumerate(makers.items())}
    return calibrate_attribution(images, pool, subjects={name: PROMPTS for name in NAMES}, captions=[*LISTED, "aaa"])


def test_drawings_are_the_candidates_mean_of_each_caption(makers, calibration):
    mean = torch.stack([maker.mean for maker in makers.values()]).mean(0)
    expected = torch.stack([mean + len(text) / 10 * makers["ada"].turn for text in LISTED])
    assert calibration.captions.texts == tuple(LISTED)  # each once
    off = calibration.captions.drawings - expected
    # what shines through of the noise is the same for all captions
    torch.testing.assert_close(off, off[:1].expand_as(off), rtol=0, atol=0.02)


def test_prompts_are_guessed_and_are_evidence(makers, pool, calibration):
    asked = PROMPTS[:6]
    for number, (name, maker) in enumerate(makers.items()):
        found = attribute(drawn(maker, asked, 500 + 10 * number), pool, calibration)
        near = [abs(len(answer.guessed) - len(prompt)) <= 2 for answer, prompt in zip(found, asked, strict=True)]
        assert sum(near) >= 5
        assert [answer.decision for answer in found].count(name) >= 5
    answer = found[0]
    assert "prompt" in answer.evidence and answer.to_dict()["guessed"] == answer.guessed
    assert f"The prompt was guessed: {answer.guessed!r}." in answer.notes()[-1]


def test_a_calibration_file_keeps_captions_and_reads_files_without(makers, pool, calibration, tmp_path):
    path = tmp_path / "toy.attribution.safetensors"
    save_calibration(calibration, path)
    image = drawn(makers["bo"], PROMPTS[:1], 900)[0]
    ours, theirs = (attribute(image, pool, one)[0] for one in (calibration, load_calibration(path)))
    assert (theirs.decision, theirs.guessed) == (ours.decision, ours.guessed)
    assert theirs.probabilities == pytest.approx(ours.probabilities)
    tensors = load_file(path)
    from cryptomnesia.attribution import calibration_file

    header = calibration_file.read_tensors(path, "calibration")[0]
    save_file(tensors, path, header | {"captions": json.dumps(["one"])})
    with pytest.raises(CalibrationError, match="drawings are not those of its captions"):
        load_calibration(path)
    plain = {name: tensors[name] for name in tensors if "drawings" not in name}
    del header["captions"], header["leeway"], header["usual"]
    save_file(plain, path, header | {"schema": "cryptomnesia/attribution/2"})
    assert load_calibration(path).captions is None


def test_prompts_are_known_or_guessed(makers, pool, calibration):
    images = {name: drawn(maker, PROMPTS, 0) for name, maker in makers.items()}
    with pytest.raises(InputError, match="need no captions"):
        calibrate_attribution(images, pool, prompts={name: PROMPTS for name in NAMES}, captions=LISTED)
    with pytest.raises(InputError, match="1 captions are no choice"):
        calibrate_attribution(images, pool, captions=["a", "a"])
    with pytest.raises(InputError, match="guesses prompts from captions"):
        attribute(images["bo"], pool, calibration, prompts="a")


def test_fewer_captions_than_are_tried_are_all_tried(makers, pool):
    images = [image[None] for image in drawn(makers["cy"], ["a" * 16, "a" * 2], 70)]
    captions = Captions.learn(["a" * 2, "a" * 16], pool, images)
    assert captions.guess(pool[2], images) == ["a" * 16, "a" * 2]
