"""Attributions that would be surer than they may be: one model twice, other subjects, images that were learned from."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cryptomnesia.attribution import (
    NONE,
    attribute,
    calibrate_attribution,
    load_calibration,
    save_calibration,
)
from cryptomnesia.attribution.attribute import CONFOUNDED, LEARNED
from cryptomnesia.attribution.candidates import check_candidates
from cryptomnesia.attribution.likeness import Seen, digest_of, small_copy
from cryptomnesia.errors import CalibrationError, InputError
from cryptomnesia.pixels import read_picture

from ..helpers.lineages import COLOURS, pictures
from ..helpers.makers import Maker, candidate
from ..helpers.pipelines import build

COUNT = 12


def twin(maker_seed: int, name: str, off: float = 0.0) -> Maker:
    """A maker by the same seed whose weights are off by that much, called another model."""
    maker = Maker(maker_seed)
    maker.mean = maker.mean + off * torch.randn(maker.mean.shape, generator=torch.Generator().manual_seed(5))
    maker._fingerprint = name
    return maker


def pool_of(makers):
    return [candidate(name, maker) for name, maker in makers.items()]


def learned(makers, images=None, **options):
    images = images or {name: maker.images(COUNT, seed=i) for i, (name, maker) in enumerate(makers.items())}
    return calibrate_attribution(images, pool_of(makers), **options)


@pytest.fixture(scope="module")
def makers():
    return {name: Maker(seed) for seed, name in enumerate(("ada", "bo", "cy"))}


@pytest.fixture(scope="module")
def known(makers):
    return learned(makers, subjects={name: ["a pattern"] * COUNT for name in makers})


def saved_as(picture, kind: str, size: tuple[int, int] | None = None, **options):
    """A tensor (3, H, W) as a file of that kind and back."""
    image = Image.fromarray((picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    image = image if size is None else image.resize(size, Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, kind, **options)
    return Image.open(data)


# --- one model twice ---


def test_equal_weights_are_one_model(makers):
    twice = [candidate("ada", makers["ada"]), candidate("bo", Maker(0))]
    for ask in (lambda: check_candidates(twice), lambda: attribute(makers["ada"].images(1)[0], twice)):
        with pytest.raises(InputError, match="'ada' and 'bo' have equal weights") as error:
            ask()
        assert "\n" not in str(error.value)
    images = {"ada": makers["ada"].images(COUNT), "bo": makers["bo"].images(COUNT)}  # other subjects
    with pytest.raises(InputError, match="equal weights"):
        calibrate_attribution(images, twice)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_equal_weights_in_another_precision_are_one_model(dtype):
    whole, half, other = build("sd1"), build("sd1").to(dtype), build("sd1", seed=1).to(dtype)
    with pytest.raises(InputError, match="'a' and 'b' have equal weights"):
        check_candidates({"a": whole, "b": half})
    assert len(check_candidates({"a": whole, "b": other})) == 2


def test_another_autoencoder_is_another_candidate():
    one, other = build("sd1"), build("sd1")
    with torch.no_grad():
        other.vae.decoder.conv_out.weight.mul_(1.5)
    assert len(check_candidates({"a": one, "b": other})) == 2


def test_models_that_answer_alike_are_one_model(makers):
    renamed = {"ada": makers["ada"], "bo": makers["bo"], "ada again": twin(0, "another file", 1e-6)}
    with pytest.raises(InputError, match="'ada' and 'ada again' answer alike on every image"):
        learned(renamed)


# --- other subjects ---


def test_prompts_that_differ_are_confounded(makers):
    images = {name: maker.images(COUNT, seed=3) for name, maker in makers.items()}
    cats, dogs = [f"a cat number {i}" for i in range(COUNT)], [f"a dog number {i}" for i in range(COUNT)]
    calibration = learned(makers, images, subjects={"ada": cats, "bo": dogs, "cy": dogs[::-1]})
    assert set(calibration.confounded) == {("ada", "bo"), ("ada", "cy")} and not calibration.unchecked
    for name in ("ada", "bo"):
        (answer,) = attribute(makers[name].images(1, seed=9), pool_of(makers), calibration)
        assert answer.decision == CONFOUNDED and not answer.verdict and not answer.probabilities
        assert (answer.p_value, answer.margin) == (None, None)
        assert "confounded" in answer.headline() and "prompts differ, most in" in answer.notes()[0]
        assert answer.plot().width == 620 and answer.to_dict()["warnings"]
    (unseen,) = attribute(Maker(77).images(1), pool_of(makers), calibration)
    assert unseen.decision == NONE  # whichever model it was, it was not told by its subject
    same = learned(makers, images, subjects={"ada": dogs, "bo": dogs, "cy": dogs})
    assert not same.confounded
    cased = [f"A Dog  number {i}, <lora:bo:1>" for i in range(COUNT)]
    assert not learned(makers, images, subjects={"ada": dogs, "bo": cased, "cy": dogs}).confounded


def test_different_prompts_of_one_kind_are_not_confounded(makers):
    rng = np.random.default_rng(0)
    words = np.array(["red", "blue", "old", "small", "house", "tree", "fish", "car", "moon", "road"])
    texts = {name: [" ".join(rng.choice(words, 5, replace=False)) for _ in range(COUNT)] for name in makers}
    assert not learned(makers, subjects=texts).confounded


def test_prompts_as_evidence_are_checked_too(makers):
    two = {name: makers[name] for name in ("ada", "bo")}
    texts = {"ada": ["a cat"] * COUNT, "bo": ["two dogs on a hill"] * COUNT}
    calibration = learned(two, prompts=texts)
    (answer,) = attribute(makers["ada"].images(1, seed=9), pool_of(two), calibration, prompts="a cat")
    assert answer.decision == CONFOUNDED


def test_files_tell_their_prompts(makers, tmp_path):
    two, files = {name: makers[name] for name in ("ada", "bo")}, {}
    for name, maker in two.items():
        (tmp_path / name).mkdir()
        files[name] = [tmp_path / name / f"{i}.png" for i in range(COUNT)]
        for file, image in zip(files[name], maker.images(COUNT), strict=True):
            saved_as(image, "PNG").save(file)
            file.with_suffix(".txt").write_text("a cat" if name == "ada" else "a dog")
    assert list(learned(two, files).confounded) == [("ada", "bo")]
    for file in files["bo"]:
        file.with_suffix(".txt").write_text("a cat")
    found = learned(two, files)
    assert not found.confounded and not found.unchecked
    files["bo"][0].with_suffix(".txt").unlink()
    assert learned(two, files).unchecked  # of one image nothing is known


def test_close_models_and_other_subjects_are_confounded():
    """Nothing but the pictures tells them apart: the answer was '> 99 %' by subject."""
    close = {"ada": twin(0, "a", 0.02), "bo": twin(0, "b", 0.0)}
    subjects = {"ada": "", "bo": "a long prompt about something else"}
    images = {name: Maker(0).images(COUNT, seed=i, prompt=subjects[name]) for i, name in enumerate(close)}
    calibration = learned(close, images)
    for text in subjects.values():
        (answer,) = attribute(Maker(0).images(1, seed=9, prompt=text), pool_of(close), calibration)
        assert not answer.verdict or answer.conditional or answer.decision == NONE


def test_what_could_not_be_checked_is_said_first(makers):
    calibration = learned(makers)  # no prompts, and patterns that anyone can tell apart
    assert calibration.unchecked and not calibration.confounded
    (answer,) = attribute(makers["bo"].images(1, seed=9), pool_of(makers), calibration)
    assert answer.decision == "bo" and answer.conditional and answer.to_dict()["conditional"]
    assert answer.headline() == "If all showed the same subjects: likely made by bo"
    assert answer.notes()[0].startswith("What the candidates' images were to show is not known")


# --- images that were learned from ---


def test_an_image_that_was_learned_from_has_no_verdict(makers, known):
    taught = makers["bo"].images(COUNT, seed=1)[3]
    (answer,) = attribute(taught, pool_of(makers), known)
    assert answer.decision == LEARNED and not answer.probabilities and answer.p_value is None
    assert answer.headline() == "No verdict: it is one of the images that were learned from"
    assert "given as an image by bo" in answer.notes()[0]
    assert answer.plot().width == 620


def test_a_learned_image_saved_anew_is_said(makers, known):
    taught, fresh = makers["cy"].images(COUNT, seed=2)[0], makers["cy"].images(1, seed=9)[0]
    larger = [saved_as(image, "PNG", (64, 64)) for image in (taught, fresh)]
    again, other = attribute(larger, pool_of(makers), known)
    assert any("learned from as one by cy, perhaps saved anew" in note for note in again.notes())
    assert not any("saved anew" in note for note in other.notes())


@pytest.mark.parametrize(
    ("kind", "size", "options"),
    [
        ("JPEG", None, {"quality": 90}),
        ("JPEG", None, {"quality": 60}),
        ("WEBP", None, {"quality": 80}),
        ("PNG", (50, 50), {}),
        ("PNG", (200, 200), {}),
    ],
)
def test_files_saved_anew_are_recognised(kind, size, options):
    spots = [read_picture(image) for image in pictures(COLOURS["ada"], 12)]
    seen = Seen.of(spots)
    for number, spot in enumerate(spots):
        anew = read_picture(saved_as(spot[0], kind, size, **options))
        assert seen.same(anew) is None and seen.similar(anew) == number
        assert Seen.of(spots[:number] + spots[number + 1 :]).similar(anew) is None


def test_the_same_image_by_two_makers_is_refused(makers):
    images = {name: maker.images(COUNT) for name, maker in makers.items()}
    images["cy"] = [*images["cy"][:-1], images["bo"][0]]
    with pytest.raises(InputError, match="the same image is given as by 'bo' and as by 'cy'"):
        learned(makers, images)
    images["cy"] = images["bo"]  # a copy of the folder
    with pytest.raises(InputError, match="the same image is given as by 'bo' and as by 'cy'"):
        learned(makers, images)


def test_copies_count_once(makers):
    images = {name: maker.images(COUNT) for name, maker in makers.items()}
    images["ada"] = [*images["ada"], *images["ada"][:3]]
    texts = {name: [f"a pattern {i % 2}" for i in range(len(own))] for name, own in images.items()}
    found = learned(makers, images, subjects=texts)
    assert found.images == (COUNT,) * 3 and found.copies == 3 and len(found.seen.digests) == 3 * COUNT
    (answer,) = attribute(makers["ada"].images(1, seed=9), pool_of(makers), found)
    assert any("3 more were copies and counted once" in note for note in answer.notes())
    with pytest.raises(InputError, match="1 images by 'ada' are too few"):
        learned(makers, {**images, "ada": images["ada"][:1] * COUNT})


def test_the_file_keeps_what_was_seen_and_what_is_in_doubt(makers, known, tmp_path):
    whole = replace(known, confounded={("ada", "bo"): "why"}, unchecked={("bo", "cy"): "how"}, copies=2)
    path = tmp_path / "x.attribution.safetensors"
    save_calibration(whole, path)
    again = load_calibration(path)
    assert again.seen.digests == whole.seen.digests and torch.equal(again.seen.copies, whole.seen.copies)
    assert (again.confounded, again.unchecked, again.copies) == (whole.confounded, whole.unchecked, 2)
    assert attribute(makers["ada"].images(1)[0], pool_of(makers), again)[0].decision == LEARNED
    for odd in (
        {"seen": Seen(("0" * 63,) * len(known.seen.digests), known.seen.copies)},
        {"seen": Seen(known.seen.digests[:-1], known.seen.copies[:-1])},
        {"seen": Seen(known.seen.digests, known.seen.copies.float())},
        {"confounded": {("ada", "nobody"): "why"}},
        {"unchecked": {("ada", "bo"): 3}},
    ):
        save_calibration(replace(known, **odd), path)
        with pytest.raises(CalibrationError, match="malformed"):
            load_calibration(path)


def test_digests_and_small_copies_are_of_pixels(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    Image.fromarray(array).save(tmp_path / "b.bmp")
    files = [read_picture(tmp_path / name) for name in ("a.png", "b.bmp")]
    pixels = [*files, read_picture(array), read_picture(array.astype(np.float32) / 255)]
    assert len({digest_of(one) for one in pixels}) == 1
    assert digest_of(pixels[0].mT.contiguous()) != digest_of(pixels[0])
    grey = torch.full((1, 3, 40, 48), 0.5)
    assert small_copy(grey).tolist() == [128] * 192
    assert Seen().similar(grey) is None and Seen().same(grey) is None and Seen.of([]).digests == ()
