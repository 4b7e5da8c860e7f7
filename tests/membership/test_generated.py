"""A model's own images are not taken for training images: they survive their autoencoder's second round trip."""

import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator

from cryptomnesia.errors import InputError, NonFiniteError
from cryptomnesia.membership import CONFOUNDED, GENERATED, LIKELY, NO_EVIDENCE, Measured, Settings, compare
from cryptomnesia.membership.result import PRETRAINED
from cryptomnesia.membership.round_trip import look_generated, round_trips
from cryptomnesia.sidecar.findings import KINDS, finding_of
from cryptomnesia.two_samples import images_needed, power


class Blurring:
    """An autoencoder that keeps every other pixel's neighbourhood."""

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(image, 2)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(latent, scale_factor=2)


def test_a_round_trip_loses_what_was_not_decoded():
    coder, generator = Blurring(), torch.Generator().manual_seed(0)
    others = torch.rand(4, 3, 16, 16, generator=generator)
    own = (coder.decode(torch.rand(4, 3, 8, 8, generator=generator)) * 255).round() / 255  # as a file keeps it
    lost = (others - coder.decode(coder.encode_image(others))).double().square().mean((1, 2, 3))
    rounding = 1 / (12 * 255**2)
    assert torch.allclose(round_trips(coder, others), ((lost + rounding) / rounding).log(), atol=1e-6)
    assert torch.allclose(round_trips(coder, own), torch.zeros(4, dtype=torch.float64), atol=1e-6)
    coder.encode_image = lambda image: image[..., ::2, ::2] * float("nan")
    with pytest.raises(NonFiniteError, match="autoencoder answered with NaN"):
        round_trips(coder, others)


def trips(count: int, made: int, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(2.6, 0.5, count)
    found[:made] -= 2.2
    return found


@pytest.mark.parametrize("count", [10, 70, 500])
def test_images_from_elsewhere_rarely_look_generated(count):
    shares = [len(look_generated(trips(200, 0, seed), trips(count, 0, seed + 1000)).rows) / 200 for seed in range(100)]
    assert 0.005 < np.mean(shares) < 0.015  # one in a hundred, however few references there are
    many = [look_generated(trips(count, 0, seed), trips(count, 0, seed + 1000)).many for seed in range(100)]
    assert np.mean(many) <= 0.02


def images(kind: str, low: float, made: int, count: int = 30) -> Measured:
    """Images that look trained on by `low`, the first of them generated, which makes them look so, too."""
    rng = np.random.default_rng(len(kind))
    statistic = rng.normal(size=count) - low
    statistic[:made] = rng.normal(size=made) - 3
    names = tuple(f"{kind} {i}" for i in range(count))
    return Measured(
        names, statistic, rng.normal(size=(count, 3)), names, {}, 1, round_trips=trips(count, made, len(kind))
    )


HOW = {"settings": Settings("sima_mc"), "fingerprint": "f"}


@pytest.mark.parametrize(
    ("low", "made", "verdict", "words"),
    [
        (0.0, 30, GENERATED, "all 30 have been through this autoencoder"),
        (0.0, 25, GENERATED, "Fewer than 10 others are left"),
        (0.0, 18, GENERATED, "18 of 30 have been through"),
        (2.0, 18, LIKELY, "Without them p ="),
        (2.0, 0, LIKELY, "80 % of all cases"),
        (2.0, 2, LIKELY, "80 % of all cases"),  # two may be chance
        (0.0, 0, NO_EVIDENCE, "about 1,000 images in each are needed"),
    ],
)
def test_verdicts(low, made, verdict, words):
    found = compare(images("suspects", low, made), images("reference", 0.0, 0), **HOW)
    assert found.verdict == verdict and any(words in note for note in found.notes())
    assert (found.others_p is not None) == (made == 18)
    if verdict == GENERATED:
        assert found.headline().startswith("Generated, not trained on")
        assert found.to_dict()["generated"]["images"] == [f"suspects {i}" for i in range(made)]


def test_generated_ones_are_told_where_the_references_are_of_another_kind():
    suspects = images("suspects", -5.0, 0)  # harder than the references, not easier
    suspects = replace(suspects, round_trips=trips(30, 30), features=suspects.features + 3)
    found = compare(suspects, images("reference", 0.0, 0), **HOW)
    assert found.verdict == GENERATED and found.p_value > 0.05 and not found.comparability.comparable


def test_generated_ones_do_not_hide_that_others_are_of_another_kind():
    suspects = images("suspects", 2.0, 15)
    suspects.features[15:] += 3
    found = compare(suspects, images("reference", 0.0, 0), **HOW)
    assert found.verdict == CONFOUNDED and found.others_p is not None


def test_a_sidecar_says_so_and_fits_its_schema():
    schema = json.loads(resources.files("cryptomnesia.sidecar").joinpath("schema.json").read_text("utf-8"))
    check = Draft202012Validator({"$ref": "#/$defs/membership", "$defs": schema["$defs"]})
    settings = Settings("sima_mc", (0.5,), 8, features="gradients", by_complexity=True)
    test = compare(images("suspects", 0.0, 30), images("reference", 0.0, 0), settings=settings, fingerprint="f")
    finding = finding_of(test)
    check.validate(finding)
    said = KINDS["membership"].clause(finding)
    assert "no verdict on training" in said and "likely trained" not in said


def test_bad_numbers():
    one, other = images("suspects", 0.0, 30), images("reference", 0.0, 0)
    with pytest.raises(InputError, match="round trips of the suspects hold NaN"):
        look_generated(trips(30, 0) * np.nan, trips(30, 0))
    with pytest.raises(InputError, match="one of the two sets only"):
        compare(
            one,
            Measured(*(getattr(other, n) for n in ("names", "statistic", "features", "digests", "skipped", "sizes"))),
            **HOW,
        )


def test_the_page_tells_how_many_images_a_pretrained_model_takes():
    page = (Path(__file__).parents[2] / "docs" / "membership.md").read_text("utf-8")
    (counts, _, found) = page.split("| n |")[1].splitlines()[:3]
    numbers = [[int(re.sub(r"\D", "", cell)) for cell in row.strip(" |").split("|")] for row in (counts, found[8:])]
    assert numbers[1] == [round(100 * power(PRETRAINED["statistic"], n, n, 0.05)) for n in numbers[0]]
    assert round((images_needed(PRETRAINED["statistic"], 0.05, 0.9) or 0) / 50) * 50 == 1000
    assert round((images_needed(PRETRAINED["gradients"], 0.05, 0.9) or 0) / 50) * 50 == 150
