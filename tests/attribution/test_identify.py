"""Libraries of signatures, and whose denoiser one is."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cryptomnesia.attribution import UNKNOWN, Signatures, identify, load_library
from cryptomnesia.attribution.library import check_library
from cryptomnesia.attribution.plots import signature_plot
from cryptomnesia.errors import InputError

from ..helpers.makers import Maker

NAMES = ("ada", "bo", "cy")


def made(maker: Maker, count: int, seed: int = 0) -> torch.Tensor:
    return maker.encode_image(torch.stack(maker.images(count, seed=seed)))


@pytest.fixture(scope="module")
def makers():
    return {name: Maker(seed, fold=2, soft=0.3 * seed) for seed, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def library(makers):
    return [Signatures.measure(m, made(m, 5), name, plan="1step", keep=2) for name, m in makers.items()]


def test_the_same_latents_name_every_model(makers, library):
    for name, maker in makers.items():
        found = identify(maker, library)
        assert found.decision == name and found.paired and found.images == 2
        assert found.distances[name] == pytest.approx(0, abs=1e-6) and found.margin > 0.9


def test_an_unseen_model_is_unknown(library):
    found = identify(Maker(40, fold=2), library)
    assert found.decision == UNKNOWN and min(d for d in found.distances.values() if d is not None) > found.threshold


def test_own_images_are_compared_with_prototypes(makers, library):
    for name, maker in makers.items():
        found = identify(maker, library, made(maker, 3, seed=4), svm=True)
        assert not found.paired and found.images == 3 and 0 < found.p_value <= 1
        distances: dict[str, Any] = found.distances
        assert min(distances, key=lambda n: distances[n]) == name
        assert found.votes[name] == max(found.votes.values()) and sum(found.votes.values()) == pytest.approx(1)


def test_one_model_under_two_names_is_told(makers, library):
    again = replace(library[0], name="ada again")
    paired = identify(makers["ada"], [*library, again])
    assert paired.alike == ("ada again",)
    assert paired.headline() == "likely ada, or ada again: one model"
    renamed = replace(again, fingerprint="another file")  # e.g. in half precision
    assert identify(makers["ada"], [*library, renamed]).alike == ("ada again",)
    asked = made(makers["ada"], 3, seed=4)
    assert identify(makers["ada"], [*library, again], asked).alike == ("ada again",)
    assert identify(makers["ada"], library).alike == identify(Maker(40, fold=2), library).alike == ()


def test_the_librarys_own_images_say_nothing_new(makers, library):
    found = identify(makers["bo"], library, made(makers["bo"], 3))
    assert found.repeated == 3 and found.notes() == [
        "3 of 3 images are the library's own: give others that the model made."
    ]
    fresh = identify(makers["bo"], library, made(makers["bo"], 3, seed=4))
    assert fresh.repeated == 0 and fresh.notes() == []


def test_models_with_other_latents_are_no_match(library):
    found = identify(Maker(1, fold=4), library)
    assert found.decision == UNKNOWN and set(found.distances.values()) == {None} and found.margin is None


def test_files_keep_every_number_and_no_pickle(library, tmp_path):
    for entry in library:
        entry.save(tmp_path / f"{entry.name}.signature.safetensors")
    again = load_library(tmp_path)
    for ours, theirs in zip(library, again, strict=True):
        assert torch.equal(ours.values, theirs.values) and torch.equal(ours.latents, theirs.latents)
        assert (ours.name, ours.fingerprint, ours.settings) == (theirs.name, theirs.fingerprint, theirs.settings)
        assert ours.latent_shape == theirs.latent_shape
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"{n}.signature.safetensors" for n in NAMES]
    with safe_open(tmp_path / "ada.signature.safetensors", framework="pt") as file:
        assert file.metadata()["seed"] == "123" and file.metadata()["n"] == "5"


def test_a_seed_of_64_bits_survives(library, tmp_path):
    from dataclasses import replace

    large = replace(library[0], seed=2**64 - 1)
    large.save(tmp_path / "a.signature.safetensors")
    assert Signatures.load(tmp_path / "a.signature.safetensors").seed == 2**64 - 1


def test_broken_files_cost_one_line(library, tmp_path):
    path = tmp_path / "a.signature.safetensors"
    library[0].save(path)
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()

    def fails(words, tensors=tensors, **changed):
        save_file(tensors, path, {k: v for k, v in {**header, **changed}.items() if v is not None})
        with pytest.raises(InputError, match=words) as error:
            Signatures.load(path)
        assert "\n" not in str(error.value)

    fails("of this version", schema="cryptomnesia/signature/9")
    fails("odd parts", extra="1")
    fails("odd parts", plan=None)
    fails("unknown plan 'full'", plan="full")
    fails("5 signatures of 960 numbers", plan="5step")
    fails("malformed", n="many")
    fails("malformed", latent_shape="[1, 2]")
    fails("malformed", author_compat="3")
    fails("no signatures", {**tensors, "signatures": tensors["signatures"] * 2})
    fails("no signatures", {**tensors, "latents": tensors["latents"] * float("nan")})
    fails("not float32", {**tensors, "latents": tensors["latents"].double()})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="no complete safetensors file"):
        Signatures.load(path)
    with pytest.raises(InputError, match="there is no signature file"):
        Signatures.load(tmp_path / "b.signature.safetensors")


def test_libraries_that_do_not_fit_together(library, makers, tmp_path):
    with pytest.raises(InputError, match="the library is empty"):
        check_library([])
    with pytest.raises(InputError, match="two entries of the library are called 'ada'"):
        check_library([library[0], library[0]])
    other = Signatures.measure(makers["bo"], made(makers["bo"], 1), "bo", plan="1step", author_compat=True)
    with pytest.raises(InputError, match="'ada' has author_compat False, 'bo' has True"):
        check_library([library[0], other])
    finer = Signatures.measure(makers["bo"], made(makers["bo"], 1), "bo", plan="5step")
    with pytest.raises(InputError, match="'ada' has plan 1step, 'bo' has 5step"):
        check_library([library[0], finer])
    with pytest.raises(InputError, match=r"holds no \*\.signature\.safetensors"):
        load_library(tmp_path)
    with pytest.raises(InputError, match=r"saved as NAME\.signature\.safetensors"):
        library[0].save(tmp_path / "ada.safetensors")
    with pytest.raises(InputError, match="cannot be written"):
        library[0].save(tmp_path / "nowhere" / "ada.signature.safetensors")
    with pytest.raises(InputError, match="name of a model"):
        Signatures.measure(makers["bo"], made(makers["bo"], 1), "a\nb", plan="1step")
    with pytest.raises(InputError, match="one signature per model"):
        identify(makers["bo"], [Signatures.measure(makers["bo"], made(makers["bo"], 1), "bo", plan="1step")])
    with pytest.raises(InputError, match="give latents"):
        identify(makers["bo"], library, svm=True)


def test_plot_of_a_signature(library):
    picture = signature_plot(library[0].values, plan="1step", title="Ada")
    assert picture.mode == "RGB" and picture.width >= 560
    assert len(set(picture.getdata())) > 50
    with pytest.raises(InputError, match="has 960 numbers"):
        signature_plot(library[0].values)
