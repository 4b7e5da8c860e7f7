"""How well maps find masks: the protocol of Kim & Lee (arXiv 2605.26756), and measures that pick nothing on tests."""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

Maps = NDArray[np.float32]  # (N, H, W)
Masks = NDArray[np.bool_]  # (N, H, W)


def enlarged(maps: torch.Tensor, side: int = 64) -> Maps:
    """Returns maps (N, h, w) enlarged to (N, side, side), bilinear."""
    fine = torch.nn.functional.interpolate(maps.unsqueeze(1).float(), (side, side), mode="bilinear")
    return fine.squeeze(1).numpy()


def iou(masks: Masks, truth: Masks) -> NDArray[np.float64]:
    """Returns the (N,) intersection over union of each pair; 1 where both are empty."""
    both, either = (masks & truth).sum((1, 2)), (masks | truth).sum((1, 2))
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))


def overlap(masks: Masks, truth: Masks) -> dict[str, float]:
    """Returns means over images: IoU of the mask, mean of that and the background's, and the share of right pixels."""
    foreground, background = iou(masks, truth), iou(~masks, ~truth)
    return {
        "iou": float(foreground.mean()),
        "miou": float(((foreground + background) / 2).mean()),
        "accuracy": float((masks == truth).mean()),
    }


def authors_protocol(maps: Maps, truth: Masks) -> dict[str, float]:
    """Returns the best of each measure: log1p, min-max over the whole test set, 101 thresholds, picked on the test
    set."""
    values = np.log1p(maps)
    values = (values - values.min()) / max(float(np.ptp(values)), 1e-12)
    rows = [overlap(values > threshold, truth) for threshold in np.linspace(0, 1, 101)]
    return {name: max(row[name] for row in rows) for name in rows[0]}


def ranking(maps: Maps, truth: Masks) -> dict[str, NDArray[np.float64]]:
    """Returns pixel AUROC and average precision of each image, (N,), which need no threshold."""
    pairs = [(mask.ravel(), values.ravel()) for mask, values in zip(truth, maps, strict=True)]
    return {
        "auroc": np.array([roc_auc_score(*pair) for pair in pairs]),
        "ap": np.array([average_precision_score(*pair) for pair in pairs]),
    }


def interval(values: NDArray[np.float64], groups: list[str], rounds: int = 2000) -> list[float]:
    """Returns the 95 % interval of the mean of values (N,), by drawing whole groups (captions) anew."""
    rng, names = np.random.default_rng(0), sorted(set(groups))
    members = [values[[i for i, group in enumerate(groups) if group == name]] for name in names]
    drawn = [np.concatenate([members[k] for k in rng.integers(len(names), size=len(names))]) for _ in range(rounds)]
    low, high = np.percentile([sample.mean() for sample in drawn], [2.5, 97.5])
    return [float(low), float(high)]
