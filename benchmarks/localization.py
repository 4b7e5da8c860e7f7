"""How well maps find what the built-in model reproduces: `python -m benchmarks.localization`.

Template captions have a ground truth: the mask of the figure that training kept fixed. Verbatim captions are reproduced
whole. Everything else should stay dark. Levels, probes, smoothing and thresholds were chosen on the dev captions; the
thresholds over benign pixels come from the calibration captions. Only generations that reproduce count as positives.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.demo import demo_calibration, load_demo
from cryptomnesia.demo.captions import Caption, select
from cryptomnesia.demo.gallery import Gallery, rms
from cryptomnesia.localization.location import peak_mask
from cryptomnesia.localization.refine import refine
from cryptomnesia.localization.trajectory import late_level
from cryptomnesia.signals.curvature import SMOOTHING, curvature_map, score_difference_map
from cryptomnesia.signals.smoothing import smooth

from .bright_ending import bright_ending
from .common import arguments, store, stored, table
from .detection import true_kinds
from .masks import Maps, Masks, authors_protocol, enlarged, interval, iou, overlap, ranking

PER_CALL = 8
STEPS, GUIDANCE, LAST = 50, 7.5, 1
DARK = ("general", "control", "unseen")
DARK_PIXELS = 0.98  # of benign pixels, for thresholds that know no verdict


@dataclass(frozen=True)
class Sampled:
    """Generations, one row each: captions, images (N, 64, 64, 3) uint8, latents (N, C, h, w) at two timesteps."""

    captions: list[Caption]
    images: np.ndarray
    latents: dict[int, Tensor]

    def __getitem__(self, rows: list[int]) -> "Sampled":
        latents = {t: x[rows] for t, x in self.latents.items()}
        return Sampled([self.captions[i] for i in rows], self.images[rows], latents)

    @property
    def texts(self) -> list[str]:
        return [caption.text for caption in self.captions]


def sampled(pipe: Any, captions: list[Caption], seeds: int, times: tuple[int, ...]) -> Sampled:
    """Samples with 50 DDIM steps at guidance 7.5, every caption with seeds from 3000 on, with the latents that enter
    these steps."""
    rows = [(caption, seed) for caption in captions for seed in range(seeds)]
    images, latents = [], {t: [] for t in times}
    for start in range(0, len(rows), PER_CALL):
        part, stride = rows[start : start + PER_CALL], 1000 // STEPS

        def keep(pipe: Any, step: int, time: Any, tensors: dict[str, Any], stride: int = stride) -> dict[str, Any]:
            if int(time) - stride in latents:
                latents[int(time) - stride].append(tensors["latents"].clone())
            return {}

        generators = [torch.Generator().manual_seed(3000 + seed) for _, seed in part]
        made = pipe(
            [caption.text for caption, _ in part],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=generators,
            output_type="np",
            callback_on_step_end=keep,
        )
        images.append((made.images * 255).round().astype(np.uint8))
    joined = {t: torch.cat(parts) for t, parts in latents.items()}
    return Sampled([caption for caption, _ in rows], np.concatenate(images), joined)


def reproducing(generations: Sampled, limit: float) -> Sampled:
    """Returns the generations closer to their caption's image, inside its mask, than the limit."""
    gallery = Gallery.load()
    numbers = [gallery.captions.index(caption) for caption in generations.captions]
    pairs = zip(generations.images, numbers, strict=True)
    near = [rms(i[None], gallery.images[[n]], gallery.masks[[n]])[0, 0] < limit for i, n in pairs]
    return generations[[i for i, close in enumerate(near) if close]]


def refined(maps: Tensor, images: np.ndarray) -> Maps:
    return refine(maps, torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).numpy()


class Methods:
    """Every way to a map, by name; each (N, 64, 64) float32, higher = more likely memorized."""

    def __init__(self, pipe: Any):
        self.pipe, self.denoiser = pipe, to_denoiser(pipe)
        self.early: Any = to_denoiser(load_demo("early"))
        self.late = int(late_level(self.denoiser).time[0])

    def _dh(self, generations: Sampled, t: int, early: bool, **options: Any) -> Tensor:
        parts = []
        for rows, condition, baseline in self._chunks(generations, early):
            level, x = self.denoiser.level(t), generations.latents[t][rows]
            parts.append(curvature_map(self.denoiser, x, level, condition, baseline=baseline, **options))
        return torch.cat(parts)

    def _ds(self, generations: Sampled, t: int, early: bool) -> Tensor:
        parts = []
        for rows, condition, baseline in self._chunks(generations, early):
            level, x = self.denoiser.level(t), generations.latents[t][rows]
            parts.append(score_difference_map(self.denoiser, x, level, condition, baseline=baseline))
        return torch.cat(parts)

    def _chunks(self, generations: Sampled, early: bool) -> Iterator[tuple[slice, Any, Any]]:
        denoiser: Any = self.denoiser
        for start in range(0, len(generations.captions), PER_CALL):
            rows = slice(start, start + PER_CALL)
            texts = generations.texts[rows]
            yield rows, denoiser.encode(texts), (self.early, self.early.encode(texts)) if early else None

    def quick(self, generations: Sampled) -> Iterator[tuple[str, Maps]]:
        """Yields what is also measured on captions that should stay dark."""
        ours = self._dh(generations, self.late, False)
        yield "dh(empty), ours", refined(ours, generations.images)
        yield "dh(empty), ours, not refined", enlarged(ours)
        yield "dh(empty), authors'", enlarged(self._dh(generations, LAST, False, author_compat=True))
        yield "ds(empty), authors'", enlarged(self._ds(generations, LAST, False))
        chunks = [slice(start, start + PER_CALL) for start in range(0, len(generations.captions), PER_CALL)]
        ends = [
            bright_ending(self.pipe, generations.latents[LAST][rows], LAST, generations.texts[rows]) for rows in chunks
        ]
        yield "Bright Ending", enlarged(torch.cat(ends))

    def all(self, generations: Sampled) -> Iterator[tuple[str, Maps]]:
        """Yields everything in the table of templates."""
        yield from self.quick(generations)
        theirs = self._dh(generations, self.late, False, estimator="backward")
        yield "dh(empty), ours with 16 backward probes", refined(theirs, generations.images)
        yield "dh(empty), authors' at our level", enlarged(self._dh(generations, self.late, False, author_compat=True))
        yield "dh(early), ours", refined(self._dh(generations, self.late, True), generations.images)
        yield "dh(early), authors'", enlarged(self._dh(generations, LAST, True, author_compat=True))
        yield "ds(early), authors'", enlarged(self._ds(generations, LAST, True))
        for early, name in ((False, "empty"), (True, "early")):
            smoothed = smooth(self._ds(generations, self.late, early), SMOOTHING)
            yield f"ds({name}), as ours", refined(smoothed, generations.images)


def half_peak(maps: Maps) -> Masks:
    return peak_mask(torch.from_numpy(maps)).numpy()


def templates(maps: Maps, truth: Masks, threshold: float | None, texts: list[str]) -> dict[str, Any]:
    """Returns one method's row: the authors' protocol, and measures that pick nothing on these images."""
    ranks, ious = ranking(maps, truth), iou(half_peak(maps), truth)
    row: dict[str, Any] = {"authors_protocol": authors_protocol(maps, truth)}
    row |= {name: float(values.mean()) for name, values in ranks.items()}
    row["half_peak"] = overlap(half_peak(maps), truth)
    if threshold is not None:
        row["benign_pixels"] = overlap(maps > threshold, truth)
    row["auroc_interval"] = interval(ranks["auroc"], texts)
    row["half_peak_iou_interval"] = interval(ious, texts)
    return row


def by_caption(maps: Maps, truth: Masks, texts: list[str]) -> dict[str, dict[str, float]]:
    """Returns the method's quality by caption."""
    rows = {text: [i for i, other in enumerate(texts) if other == text] for text in dict.fromkeys(texts)}
    return {
        text: {
            "mask_share": float(truth[numbers].mean()),
            "auroc": float(ranking(maps[numbers], truth[numbers])["auroc"].mean()),
            "iou": float(iou(half_peak(maps[numbers]), truth[numbers]).mean()),
        }
        for text, numbers in rows.items()
    }


def area(maps: Maps, generations: Sampled, flagged: dict[str, bool], threshold: float) -> dict[str, Any]:
    """Returns the share of pixels in the mask: by the half peak where the prompt is flagged (ours), and by the
    threshold over pixels."""
    gate = np.array([flagged[text] for text in generations.texts])[:, None, None]
    return {
        "flagged": float(gate.mean()),
        "half_peak_and_verdict": float((half_peak(maps) & gate).mean()),
        "half_peak_alone": float(half_peak(maps).mean()),
        "benign_pixels": float((maps > threshold).mean()),
    }


def main() -> None:
    options = arguments(
        __doc__,
        split={"default": "eval", "choices": ["dev", "eval"]},
        seeds={"type": int, "default": 4, "help": "generations of each template caption"},
        dark={"type": int, "default": 40, "help": "captions of each kind that should stay dark"},
        calibration={"type": int, "default": 30, "help": "captions of each benign kind for thresholds over pixels"},
    )
    torch.set_grad_enabled(False)
    pipe, truth = load_demo(), stored("demo_model")
    methods = Methods(pipe)
    guard = Guard(methods.denoiser, demo_calibration())
    times, gallery = (LAST, methods.late), Gallery.load()
    document: dict[str, Any] = {"split": options.split, "seeds": options.seeds, "level": methods.late}

    benign = true_kinds("calibration", truth["by_caption"])[0]
    normal = [c for kind in DARK for c in [c for c in benign if c.kind == kind][: options.calibration]]
    pixels = dict(methods.quick(sampled(pipe, normal, 1, times)))
    thresholds = {name: float(np.quantile(maps, DARK_PIXELS)) for name, maps in pixels.items()}
    document["calibration_captions"], document["thresholds_over_benign_pixels"] = len(normal), thresholds
    print("calibrated on", len(normal), "captions", flush=True)

    every = sampled(pipe, select("template", options.split), options.seeds, times)
    reproduced = reproducing(every, truth["limits"]["template"])
    masks = np.stack([gallery.masks[gallery.captions.index(caption)] for caption in reproduced.captions])
    document["templates"] = {"generations": len(every.captions), "reciting": len(reproduced.captions), "methods": {}}
    measured = dict(methods.all(reproduced))
    for name, maps in measured.items():
        row = templates(maps, masks, thresholds.get(name), reproduced.texts)
        document["templates"]["methods"][name] = row
        if name == "dh(empty), ours":
            document["templates"]["by_caption"] = by_caption(maps, masks, reproduced.texts)
        print(name, row, flush=True)

    kinds = true_kinds(options.split, truth["by_caption"])[0]
    dark = {kind: [c for c in kinds if c.kind == kind][: options.dark] for kind in DARK}
    groups = {"template": (reproduced, 0), "verbatim": (select("verbatim", options.split), 1)}
    document["lit"] = {}
    for kind, (captions, seeds) in {**groups, **{kind: (captions, 1) for kind, captions in dark.items()}}.items():
        group = captions if isinstance(captions, Sampled) else sampled(pipe, captions, seeds, times)
        if kind == "verbatim":
            group = reproducing(group, truth["limits"]["verbatim"])
        texts = list(dict.fromkeys(group.texts))
        flagged = {report.prompt or "": report.memorized for report in guard.check_many(texts)}
        maps_of = {n: measured[n] for n in thresholds} if group is reproduced else dict(methods.quick(group))
        rows = {name: area(maps, group, flagged, thresholds[name]) for name, maps in maps_of.items()}
        document["lit"][kind] = {"images": len(group.captions), "methods": rows}
        print(kind, len(group.captions), rows["dh(empty), ours"], flush=True)
    show(document)
    if options.split == "eval":  # what was chosen on dev is reported elsewhere
        store("localization", document)


def show(document: dict[str, Any]) -> None:
    """Prints the tables."""
    columns = ["templates", "IoU*", "mIoU*", "accuracy*", "AUROC", "AP", "IoU half peak", "IoU benign pixels"]
    rows = []
    for name, row in document["templates"]["methods"].items():
        theirs, benign = row["authors_protocol"], row.get("benign_pixels")
        picked = [theirs["iou"], theirs["miou"], theirs["accuracy"]]
        rows.append([name, *picked, row["auroc"], row["ap"], row["half_peak"]["iou"], benign["iou"] if benign else "-"])
    table(columns, rows)
    print("* best threshold picked on the test set\n")
    lines = [
        [
            kind,
            *(about["methods"]["dh(empty), ours"][name] for name in ("flagged", "half_peak_and_verdict")),
            *(about["methods"][name]["benign_pixels"] for name in ("dh(empty), ours", "dh(empty), authors'")),
        ]
        for kind, about in document["lit"].items()
    ]
    table(["mask's share of", "prompts flagged", "ours", "benign pixels, ours", "benign pixels, authors'"], lines)


if __name__ == "__main__":
    main()
