"""Where one image reproduces training data: its map, its mask, and what the report says."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..report import MemorizationReport, RegionReport

PEAK = 0.98  # quantile of a map that stands for its highest values
HALF = 0.5  # of the peak: where the map is higher, the prompt pulls at least half as hard as at its hardest


def peak_of(maps: Tensor) -> Tensor:
    """Returns the highest value of each map (B, H, W) but for a few stray pixels, (B,)."""
    ordered = maps.flatten(1).sort(dim=1).values
    return ordered[:, min(ordered.shape[1] - 1, int(PEAK * ordered.shape[1]))]


def peak_mask(maps: Tensor) -> Tensor:
    """Returns the masks (B, H, W) bool of where maps (B, H, W) are above half their peak; empty for a map of zeros."""
    return maps > HALF * peak_of(maps).view(-1, 1, 1)


standing_out = peak_mask  # the former name


@dataclass(frozen=True)
class Location:
    """Where an image reproduces training data, if it does.

    The prompt's own verdict says whether there is a mask, the map where: curvature alone tells an ordinary thing that
    the prompt asks for from its background, too. So the false-alarm rate is that of the verdict: of benign prompts like
    those of the calibration, at most a share alpha has any pixel in the mask.

    Attributes:
        prompt: The prompt as given.
        image: The image, (3, H, W) float32 in [0, 1].
        latent_map: Curvature difference, (h, w) float32, >= 0; higher = more likely memorized there.
        map: The same at the image's size, refined along its edges, (H, W) float32, >= 0.
        region: The area that stands out, (H, W) bool, whatever the verdict: where the model finds the same again from
            other noise and the map is strong, along the picture's edges; where the verdict is not "memorized", where
            the map alone is above half its peak.
        mask: The area that likely reproduces training data, (H, W) bool: the region if the verdict is "memorized",
            empty if it is "clear", and None where there is no verdict.
        report: The check's report, with `region` filled in.
        seed, steps, guidance: The image's seed, sampling steps and guidance scale; None where a latent was given.
        note: What else the user should know, or None.
        agreed: Whether the region comes from what the model finds again, not from the map alone.
    """

    prompt: str | None
    image: Tensor
    latent_map: Tensor
    map: Tensor
    region: Tensor
    mask: Tensor | None
    report: MemorizationReport
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    note: str | None = None
    agreed: bool = False

    @property
    def share(self) -> float | None:
        """Share of the image that the mask covers, in [0, 1]; None where there is no verdict."""
        return None if self.mask is None else self.mask.float().mean().item()

    @property
    def threshold(self) -> float | None:
        """Half of the map's own peak, above which the region lies; None where it comes from more than the map."""
        return None if self.agreed else HALF * peak_of(self.map.unsqueeze(0)).item()

    @property
    def alpha(self) -> float | None:
        """At most that share of benign prompts gets a mask with any pixel in it; None without a calibration."""
        return self.report.alpha

    @property
    def reason(self) -> str | None:
        """Why there is no mask, or None where there is one."""
        return self.report.reason if self.mask is None else None

    def overlay(self, width: int = 400) -> Any:
        """Draws the picture with the masked area outlined, the map, a colour bar and a legend.

        Args:
            width: The least width of each panel in pixels.

        Returns:
            A Pillow image.

        Raises:
            MissingPackage: Pillow is not installed.
        """
        from .overlay import overlay

        return overlay(self, width)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON, without the maps; seeds are strings."""
        return {
            "prompt": self.prompt,
            "seed": None if self.seed is None else str(self.seed),
            "steps": self.steps,
            "guidance": self.guidance,
            "share": self.share,
            "threshold": self.threshold,
            "alpha": self.alpha,
            "reason": self.reason,
            "note": self.note,
            "report": self.report.to_dict(),
        }


def location_of(
    latent_map: Tensor,
    fine: Tensor,
    image: Tensor,
    report: MemorizationReport,
    region: RegionReport,
    *,
    outlined: Tensor | None = None,
    seed: int | None,
    steps: int | None,
    guidance: float | None,
    note: str | None,
) -> Location:
    """Returns the location that maps (h, w) and (H, W) of an image (3, H, W) and the prompt's verdict amount to.

    `outlined` is the area (H, W) bool that the model finds again, where that was asked.
    """
    area = peak_mask(fine.unsqueeze(0))[0] if outlined is None else outlined
    mask = None
    if report.verified:
        mask = area if report.memorized else torch.zeros_like(area)
    share = None if mask is None else mask.float().mean().item()
    region = replace(region, share=share, peak=peak_of(fine.unsqueeze(0)).item())
    return Location(
        prompt=report.prompt,
        image=image,
        latent_map=latent_map,
        map=fine,
        region=area,
        mask=mask,
        report=replace(report, region=region),
        seed=seed,
        steps=steps,
        guidance=guidance,
        note=note,
        agreed=outlined is not None,
    )
