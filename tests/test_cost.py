"""What is said of costs is what the network is really asked."""

import pytest
import torch

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.attribution import Candidate, Signatures
from cryptomnesia.attribution.evidence import costs, gather
from cryptomnesia.cost import in_words, rows_per_image
from cryptomnesia.localization import rows_of_map

from .helpers.makers import SIZE, Maker
from .helpers.pipelines import build


def test_words():
    assert in_words(3888, 38.88) == "3,888 rows of the network, as many as 39 images of 50 steps"
    assert in_words(100, 1.0) == "100 rows of the network, as many as 1 image of 50 steps"
    assert in_words(144, 1.44) == "144 rows of the network, as many as 1.4 images of 50 steps"
    assert in_words(1, 0.01) == "1 row of the network, as many as 0.1 images of 50 steps"


@pytest.mark.parametrize(("family", "rows"), [("sd1", 2), ("sd3", 2), ("flux", 1), ("flux-guided", 1)])
def test_rows_of_an_image_are_those_that_the_pipeline_asks(family, rows):
    pipe, asked = build(family), []
    network = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    network.register_forward_hook(lambda module, args, kwargs, out: asked.append(len(out[0])), with_kwargs=True)
    pipe("a cat", num_inference_steps=2, height=16, width=16, output_type="latent")
    assert asked == [rows, rows] and rows_per_image(to_denoiser(pipe)) == 50 * rows


@pytest.mark.parametrize(
    "groups", [("empty",), ("prompt", "empty", "clean", "autoencoder"), ("inversion", "signature"), ("autoencoder",)]
)
def test_rows_and_passes_of_an_attributed_image(groups, monkeypatch):
    maker, rows, passes = Maker(0, fold=2), [], []
    library = Signatures.measure(maker, maker.encode_image(torch.stack(maker.images(2))), "maker", plan="1step")
    model = Candidate("maker", maker, size=(SIZE, SIZE), library=library)
    images = [image[None] for image in maker.images(3)]
    for name, seen in (("output", rows), ("encode_image", passes), ("decode", passes)):
        whole = getattr(maker, name)
        monkeypatch.setattr(
            maker, name, lambda x, *rest, whole=whole, seen=seen: seen.append(len(x)) or whole(x, *rest)
        )
    gather(images, [model], ["a pattern"] * 3 if "prompt" in groups else None, groups=groups)
    assert (sum(rows), sum(passes)) == tuple(3 * each for each in costs(groups, "1step"))


@pytest.mark.parametrize("guidance", [7.5, 1.0])
def test_rows_of_a_map(guidance):
    pipe, asked = build("sd1"), []
    guard = Guard(pipe)
    report = guard.check("a cat", height=16, width=16)
    pipe.unet.register_forward_hook(lambda module, args, out: asked.append(len(out[0])))
    guard.locate("a cat", report=report, steps=3, guidance=guidance, height=16, width=16)
    sampled = 3 * (2 if guidance > 1 else 1)
    assert sum(asked) - sampled == rows_of_map(known=guidance > 1)
