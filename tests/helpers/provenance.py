"""Images with sidecars, as the tests of provenance need them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cryptomnesia.attribution import NONE, Attribution
from cryptomnesia.envelope import is_envelope, payload
from cryptomnesia.membership import LIKELY, Comparability, Measured, MembershipTest, Settings
from cryptomnesia.mitigation.result import Mitigation, WordChange
from cryptomnesia.report import MemorizationReport
from cryptomnesia.sidecar import Generation, save, sidecar_path

PROMPT = "the restless beacon of grimsby"
REPORT = MemorizationReport(
    prompt=PROMPT,
    verdict="memorized",
    score=7.5,
    iso=41.25,
    aniso=None,
    p_value=0.002,
    alpha=0.01,
    reason=None,
    note=None,
    seed=2**64 - 1,
    draws=4,
    forward_rows=16,
    fingerprint="f" * 64,
    calibration_id="0123456789abcdef",
)
MENDED = Mitigation(
    method="rewrite",
    held=True,
    reason=None,
    original=PROMPT,
    rewritten="the quiet beacon of grimsby",
    words=[WordChange("swap", "restless", "quiet", 3.5)],
    score_before=7.5,
    score_after=1.0,
    p_before=0.002,
    p_after=0.4,
    recall=0.1,
    similarity=0.6,
    forward_rows=90,
    backward_rows=1,
)
REWRITTEN = replace(REPORT, verdict="clear", p_value=0.4, mitigation=MENDED)
WHO = Attribution(
    decision="ada",
    probabilities={"ada": 0.83, "bo": 0.12, NONE: 0.05},
    p_value=0.4,
    distances={"ada": 12.5, "bo": 30.0},
    alpha=0.05,
    evidence=("empty", "clean", "autoencoder"),
    image="/somewhere/private/a.png",
    fingerprints={"ada": "a" * 64, "bo": "b" * 64},
)
_NAMES = tuple(f"/somewhere/private/{number}.png" for number in range(12))
_IMAGES = Measured(_NAMES, np.arange(12.0), np.zeros((12, 2)), tuple(map(str, range(12))), {}, 1)
TRAINED = MembershipTest(
    verdict=LIKELY,
    p_value=0.002,
    permutation_p=0.001,
    rank_sum_p=0.002,
    auc=0.9,
    interval=(0.7, 0.97),
    images_needed=14,
    detectable_auc=0.8,
    comparability=Comparability(0.52, 0.4, "sharpness"),
    alpha=0.05,
    suspects=_IMAGES,
    references=_IMAGES.subset(range(11)),
    settings=Settings("sima_mc", (140,), 8, 2**63),
    fingerprint="f" * 64,
)
COPY = {
    "kind": "comparison",
    "name": "/somewhere/private/image.png",
    "decision": "same part",
    "p_value": 0.004,
    "alpha": 0.01,
    "references": 250,
    "reason": None,
    "nearest": "beacon.png",
    "similarity": 0.97,
    "flipped": True,
    "share": 0.31,
    "matches": [{"reference": "/somewhere/private/beacon.png"}],
}
CHILD = {
    "kind": "lineage",
    "decision": "ada",
    "parent": "ada",
    "confidence": 0.97,
    "votes": {"ada": 1},
    "distances": {"bo": 1.25, "ada": 0.25, "cy": 0.9},
    "null_threshold": 0.5,
    "margin": 3.6,
    "fewest": 30,
    "encoder": "/somewhere/private/encoder.onnx",
    "prompts": [{"prompt": PROMPT, "parent": "ada"}],
}
GENERATION = Generation(
    host="ComfyUI 0.30.0",
    models=[
        {"role": "model", "name": "some-model.safetensors", "sha256": "a" * 64},
        {"role": "lora", "name": "some-lora", "strength": 0.8},
    ],
    sampling={"steps": 20, "cfg": 7.0, "sampler": "euler", "scheduler": "karras", "denoise": 1.0},
    seed=2**64 - 1,
    negative="blurred harbour",
)


def pixels(seed: int = 0, size: int = 8) -> np.ndarray:
    """(size, size, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def saved(folder: Path, name: str = "image.png", *, seed: int = 0, report: Any = REPORT, **options: Any) -> Path:
    """An image with its sidecar."""
    generation = options.pop("generation", GENERATION)
    save(pixels(seed), folder / name, report, generation, **options)
    return folder / name


def document(image: Path) -> dict[str, Any]:
    """What its sidecar says, whether it is signed or not."""
    found = json.loads(sidecar_path(image).read_text("utf-8"))
    return json.loads(payload(found)) if is_envelope(found) else found


def edit(image: Path, change: Any) -> None:
    """Rewrites the sidecar after change(document), without its own signature."""
    found = document(image)
    change(found)
    sidecar_path(image).write_text(json.dumps(found), "utf-8")
