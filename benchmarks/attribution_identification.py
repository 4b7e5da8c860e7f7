"""Whose denoiser is this? The part of the benchmark of attribution that looks at signatures."""

from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryptomnesia.attribution.identify import UNKNOWN, identify, identify_signatures, svm_votes
from cryptomnesia.attribution.library import Signatures
from cryptomnesia.signals.spectral import SEED, cosine_distance

from .attribution_images import captions_of, images_of, tensors
from .attribution_zoo import Zoo
from .common import table

SHIFTED = ("verbatim", "template")
SIGNED = 8  # eval images per model for the signature alone


def entries(zoo: Zoo, plan: Any, count: int) -> list[Signatures]:
    """Returns a library of the pool with that many general images of each model."""
    library = []
    for name in zoo.pool:
        parts = [general(zoo.signatures(name, name, split, plan), split) for split in ("dev", "calibration")]
        none = torch.zeros(0, 4, 16, 16)
        library.append(Signatures(name, "", "", "", (4, 16, 16), plan, SEED, False, torch.cat(parts)[:count], none))
    return library


def general(values: Tensor, split: str) -> Tensor:
    """Returns the values of general captions, which come first."""
    return values[: sum(caption.kind == "general" for caption in captions_of(split))]


def identification(zoo: Zoo, plan: Any) -> dict[str, Any]:
    """Returns the share of eval images whose signature under its own maker lies closest to that maker's prototype."""
    kinds = [caption.kind for caption in captions_of("eval")]
    groups = {"general": [i for i, k in enumerate(kinds) if k == "general"]}
    groups["verbatim and template"] = [i for i, k in enumerate(kinds) if k in SHIFTED]
    groups["all"] = list(range(len(kinds)))
    by_maker = {name: zoo.signatures(name, name, "eval", plan) for name in zoo.pool}
    results: dict[str, Any] = {}
    for count, (kind, rows) in product((1, 5, 50), groups.items()):
        library = entries(zoo, plan, count)
        prototypes = torch.stack([entry.prototype for entry in library])
        right = [
            float((cosine_distance(values[rows], prototypes).argmin(1) == i).double().mean())
            for i, values in enumerate(by_maker.values())
        ]
        row = results.setdefault(f"{count} prototypes", {})
        row[kind] = {"mean": float(np.mean(right)), **dict(zip(zoo.pool, right, strict=True))}
        if count == 50:
            votes = [svm_votes(values[rows], library)[name] for name, values in by_maker.items()]
            results.setdefault("SVM, 50 images", {})[kind] = {"mean": float(np.mean(votes))}
            ten = [identify_signatures(values[rows][:10], library).decision for values in by_maker.values()]
            results.setdefault("10 images at once, 50 prototypes", {})[kind] = {
                "mean": float(np.mean([a == b for a, b in zip(ten, zoo.pool, strict=True)]))
            }
    table(
        [f"identification, {plan}", *groups], [[name, *(r[k]["mean"] for k in groups)] for name, r in results.items()]
    )
    return results


def paired_identification(zoo: Zoo) -> dict[str, Any]:
    """Identifies every model, unseen ones too, against a library that brings its latents; and with its own entry taken
    out."""
    library = []
    for name in zoo.pool:
        candidate, images = zoo.candidate(name), images_of(name, "calibration", zoo.work)[:4]
        latents = torch.cat([candidate.coder.encode_image(image) for image in tensors(images)])
        library.append(Signatures.measure(candidate.denoiser, latents, name, plan="1step"))
    rows: dict[str, Any] = {}
    for name in zoo.makers:
        answer = identify(zoo.candidate(name).denoiser, library)
        others = {n: d for n, d in answer.distances.items() if n != name and d is not None}
        left_out = (
            UNKNOWN if min(others.values(), default=1.0) > answer.threshold else min(others, key=lambda n: others[n])
        )
        rows[name] = {"named": answer.decision, "named_if_left_out": left_out, "distances": answer.distances}
        rows[name]["threshold"] = answer.threshold
    right = [row["named"] == (name if name in zoo.pool else UNKNOWN) for name, row in rows.items()]
    unknown = [row["named_if_left_out"] == UNKNOWN for row in rows.values()]
    print(f"identified about the same latents: {np.mean(right):.3f}; unknown where left out: {np.mean(unknown):.3f}")
    return {"right": float(np.mean(right)), "unknown_where_left_out": float(np.mean(unknown)), "by_model": rows}


def signature_alone(zoo: Zoo) -> dict[str, Any]:
    """Returns image attribution by the signature alone: the candidate whose own prototype is closest."""
    prototypes = {entry.name: entry.prototype[None] for entry in entries(zoo, "1step", 50)}
    right, shares = {}, []
    for maker in zoo.pool:
        distances = [
            cosine_distance(zoo.signatures(name, maker, "eval", "1step", SIGNED), prototypes[name])[:, 0]
            for name in zoo.pool
        ]
        chosen = torch.stack(distances, 1).argmin(1)
        right[maker] = float((chosen == zoo.pool.index(maker)).double().mean())
        shares += chosen.tolist()
    result = {"images_per_model": SIGNED, "closed": {"mean": float(np.mean(list(right.values()))), **right}}
    print(f"signature alone, every candidate probed: {result['closed']['mean']:.3f} of {len(shares)} images")
    return result
