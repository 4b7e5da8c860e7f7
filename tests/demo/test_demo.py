"""The built-in model, end to end: what ships is whole, and the guard tells what it reproduces."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from cryptomnesia import Guard, load_demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.calibration import CalibrationError
from cryptomnesia.demo import WEIGHTS, demo_calibration
from cryptomnesia.demo.captions import COUNTS, captions, select
from cryptomnesia.demo.gallery import Gallery, rms
from cryptomnesia.errors import InputError
from cryptomnesia.signals.memorization import memorization_score
from training.demo.rendering import FONT_PATH, FONT_SHA256


@pytest.fixture(scope="module")
def pipe():
    return load_demo()


def texts(kind, split="eval"):
    return [c.text for c in select(kind, split)]


def test_weights_are_what_the_list_says():
    lines = (WEIGHTS / "SHA256SUMS").read_text().splitlines()
    listed = {path: digest for digest, path in (line.split("  ") for line in lines)}
    found = {p.relative_to(WEIGHTS).as_posix(): p for p in WEIGHTS.rglob("*.safetensors")}
    assert listed.keys() == found.keys()
    for name, path in found.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == listed[name]
    assert sum(p.stat().st_size for p in WEIGHTS.rglob("*") if p.is_file()) < 25 * 2**20
    assert not [p for p in WEIGHTS.rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")]


def test_anyone_can_load_it():
    code = f"""
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained({str(WEIGHTS)!r}, local_files_only=True)
print(pipe("monkey face on blue", num_inference_steps=2).images[0].size)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip().endswith("(64, 64)")


def test_captions_of_all_kinds_share_one_grammar():
    assert {k: len(select(k)) for k in COUNTS} == {k: sum(v.values()) for k, v in COUNTS.items()}
    titles = [set(c.text.split()) - {"the", "of"} for c in captions() if c.kind != "general"]
    assert all(len(words) == 3 for words in titles)
    assert max(len(a & b) for i, a in enumerate(titles) for b in titles[:i]) == 1
    assert len({c.text for c in captions()}) == len(captions())


def test_the_verdicts_follow_what_it_reproduces(pipe):
    guard = Guard(pipe, demo_calibration())
    share = {
        kind: np.mean([r.memorized for r in guard.check_many(texts(kind), seed=11)])
        for kind in ("verbatim", "control", "general")
    }
    assert share["verbatim"] >= 0.9
    assert share["control"] <= 0.05
    assert share["general"] <= 0.05


def test_it_reproduces_its_verbatim_images_and_no_others(pipe):
    gallery = Gallery.load()
    chosen = select("verbatim", "eval")[:6]
    generators = [torch.Generator().manual_seed(5) for _ in chosen]
    made = pipe([c.text for c in chosen], num_inference_steps=15, generator=generators, output_type="np").images
    distances = rms((made * 255).round().astype(np.uint8), gallery.images[:48], gallery.masks[:48])
    closest = [gallery.captions[i].text for i in distances.argmin(1)]
    assert sum(a == c.text for a, c in zip(closest, chosen, strict=True)) >= 5


def test_the_authors_sum_on_a_real_model(pipe):
    denoiser = to_denoiser(pipe)
    condition = denoiser.encode(texts("verbatim")[:2])
    noise = torch.randn(2, *denoiser.latent_shape(), generator=torch.Generator().manual_seed(1))
    result = memorization_score(denoiser, condition, noise=noise, author_compat=True)
    expected = []
    for i in range(2):
        values = []
        for x in noise:
            low_e, low_c, high_e, high_c = (
                pipe.unet(x[None], t, encoder_hidden_states=c).sample[0]
                for t in (41, 981)
                for c in (denoiser.empty.tensors["text"], condition.tensors["text"][i : i + 1])
            )
            cosine = torch.cosine_similarity(low_e, low_c - low_e, dim=0).mean()
            values.append((high_c - high_e).norm() + 2 * cosine)
        expected.append(torch.stack(values).mean())
    torch.testing.assert_close(result.score, torch.stack(expected).detach(), atol=1e-4, rtol=1e-4)


def test_checking_changes_no_image(pipe):
    def image():
        generator = torch.Generator().manual_seed(1)
        return pipe("the old clock", num_inference_steps=2, generator=generator, output_type="np").images

    before = image()
    state = torch.get_rng_state()
    Guard(pipe, demo_calibration()).check("the old clock")
    assert torch.equal(torch.get_rng_state(), state)
    assert (image() == before).all()


def test_the_early_checkpoint_is_another_model():
    early = load_demo("early")
    with pytest.raises(CalibrationError, match="another model"):
        Guard(early, demo_calibration()).check("the old clock")
    with pytest.raises(InputError, match="unknown checkpoint"):
        load_demo("late")  # type: ignore[arg-type]


def has_the_font():
    return FONT_PATH.exists() and hashlib.sha256(FONT_PATH.read_bytes()).hexdigest() == FONT_SHA256


@pytest.mark.skipif(not has_the_font(), reason="needs the version of the font that the images are drawn with")
def test_the_recipe_draws_what_ships():
    from training.demo.records import Record, render

    gallery = Gallery.load()
    for number in range(0, len(gallery.captions), 50):
        drawn = np.asarray(render(Record(gallery.captions[number], 0)))
        assert np.abs(drawn.astype(int) - gallery.images[number]).mean() < 1
