"""Are a model's own images told from those it was trained on? `python -m benchmarks.membership_generated WORK`.

The test of folders on a fine-tune, with suspects that it was trained on, that nobody trained on, that it made, and that
other models made that share its autoencoder; against held-out images of the same captions. What is measured of round
trips was chosen on the built-in model and captions of the split "dev"; here are the fine-tune on captions of
"calibration". Measurements are kept in WORK.
"""

import argparse
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cryptomnesia.adapters.sampling import TextToImage, as_bytes, ddim
from cryptomnesia.comparability import image_features
from cryptomnesia.image_model import ImageModel
from cryptomnesia.membership import Measured, Settings, compare
from cryptomnesia.membership.numbers import statistics
from cryptomnesia.membership.round_trip import look_generated, round_trips
from training.zoo.load import load_model

from .common import store, table
from .membership_data import Model, pictures, sets

SUBJECT, COUNT, SIZE, TRIALS = "tuned", 30, 20, 100
MADE: dict[str, tuple[str, int, float, int]] = {  # model, steps, guidance, images
    "its own, 20 steps, guidance 7.5": (SUBJECT, 20, 7.5, COUNT),
    "its own, 20 steps, guidance 1": (SUBJECT, 20, 1.0, COUNT),
    "its own, 50 steps, guidance 7.5": (SUBJECT, 50, 7.5, SIZE),
    "by its parent": ("base", 20, 7.5, SIZE),
    "by another model": ("shallow", 20, 7.5, COUNT),
}
JPEG = (95, 75)
FIRST_SEED = 40_000
SETTINGS = Settings("sima_mc", (140,), 8)


def made(name: str, steps: int, guidance: float, texts: list[str], work: Path) -> NDArray[np.uint8]:
    """Images (B, 64, 64, 3) by a model of the zoo, kept."""
    file = work / f"made-{name}-{steps}-{guidance}-{len(texts)}.npy"
    if not file.exists():
        pipe = load_model(name)
        maker = TextToImage(pipe, steps=steps, guidance=guidance, scheduler=ddim(pipe))
        seeds = [FIRST_SEED + number for number in range(len(texts))]
        np.save(file, as_bytes(maker.images(texts, seeds, per_call=8)))
    return np.load(file)


def tensor(images: NDArray[np.uint8]) -> Tensor:
    """(B, 3, 64, 64) in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def compressed(images: Tensor, quality: int) -> Tensor:
    """The same after JPEG."""
    found = []
    for image in (images.permute(0, 2, 3, 1) * 255).round().byte().numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        found.append(np.array(Image.open(file)))
    return tensor(np.stack(found))


def measured(model: ImageModel, kind: str, images: Tensor, work: Path) -> Measured:
    """The images with all numbers, which are kept."""
    names = tuple(f"{kind} {number}" for number in range(len(images)))
    file = work / f"generated-{SUBJECT}-{kind.replace(' ', '-')}-{len(images)}.npz"
    if not file.exists():
        parts = images.split(10)
        latents = [model.coder.encode_image(part) for part in parts]
        numbers = [statistics(model, z, [], SETTINGS) for z in latents]
        trips = torch.cat([round_trips(model.coder, part) for part in parts])
        np.savez(file, statistic=np.concatenate(numbers), trips=trips.numpy())
    kept = np.load(file)
    plain = np.array([image_features(image[None]) for image in images])
    return Measured(names, kept["statistic"], plain, names, {}, 1, round_trips=kept["trips"])


def outcomes(suspects: Measured, references: Measured) -> dict[str, float]:
    """Of random folders of SIZE: which verdicts they get, and which they got before round trips were looked at."""
    rng = np.random.default_rng(7)
    found: dict[str, float] = {}
    for trial in range(TRIALS):
        one = suspects.subset(rng.choice(len(suspects), SIZE, replace=False))
        other = references.subset(rng.choice(len(references), SIZE, replace=False))
        how: Any = {"settings": SETTINGS, "fingerprint": "", "seed": trial}
        before = compare(*(replace(side, round_trips=None) for side in (one, other)), **how)
        for name, verdict in (("before", before.verdict), ("now", compare(one, other, **how).verdict)):
            found[f"{name}: {verdict}"] = found.get(f"{name}: {verdict}", 0.0) + 1 / TRIALS
        key = "p alone, before"
        found[key] = found.get(key, 0.0) + float(before.p_value <= before.alpha) / TRIALS
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    work: Path = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    members, twins, _ = sets(SUBJECT)
    texts = [record.caption.text for record in members]
    model = ImageModel("the model", Model(SUBJECT, work).denoiser)
    kinds = {
        "training images": pictures(members[:COUNT]),
        "held-out images": pictures(twins[:COUNT]),
        **{kind: tensor(made(*how[:3], texts[: how[3]], work)) for kind, how in MADE.items()},
    }
    own = next(iter(MADE))
    kinds |= {f"{kind}, JPEG {q}": compressed(kinds[kind], q) for kind in (own, "held-out images") for q in JPEG}
    references = measured(model, "references", pictures(twins[COUNT:]), work)
    found: dict[str, Any] = {}
    for kind, images in kinds.items():
        these = measured(model, kind, images, work)
        trips, known = np.asarray(these.round_trips), np.asarray(references.round_trips)
        limit = look_generated(trips, known)
        found[kind] = {
            "images": len(images),
            "round_trip": {"mean": float(trips.mean()), "spread": float(trips.std())},
            "look_generated": len(limit.rows) / len(images),
            "folders": outcomes(these, references),
        }
        print(kind, found[kind], flush=True)
    header = [
        "suspects",
        "round trip",
        "single images flagged",
        "likely, before",
        "p alone",
        "likely, now",
        "generated",
    ]
    said = ("before: likely trained on some of these", "p alone, before", "now: likely trained on some of these")
    rows = [
        [
            k,
            f["round_trip"]["mean"],
            f["look_generated"],
            *(f["folders"].get(x, 0.0) for x in (*said, "now: generated, not trained on")),
        ]
        for k, f in found.items()
    ]
    table(header, rows)
    store("membership_generated", {"subject": SUBJECT, "references": len(references), "size": SIZE, "kinds": found})


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
