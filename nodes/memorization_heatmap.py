"""Node: which part of an image is memorized?"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..guard.adapters.comfyui import ComfyDenoiser
from ..guard.denoiser import Condition
from ..guard.errors import InputError, NotApplicable
from ..guard.localization import Late, Location, locate_late
from ..guard.report import MemorizationReport
from ..guard.signals.draws import derived_seed
from . import inputs, outputs
from .values import CATEGORY, Report, read_report, still


class MemorizationHeatmap(io.ComfyNode):
    """Shows where the curvatures with and without the prompt differ; see `guard.signals.curvature`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaMemorizationHeatmap",
            display_name="Memorization Heatmap",
            category=CATEGORY,
            description="Shows where a finished image is memorized. The mask plugs into inpainting, so that this part "
            "can be made anew with another prompt.",
            search_aliases=["cryptomnesia", "heatmap", "localization", "mask", "curvature"],
            inputs=[
                inputs.model(),
                inputs.clip(),
                io.Conditioning.Input("positive", tooltip="The prompt that the image was sampled with."),
                io.Latent.Input("samples", tooltip="The latent that the sampler gave."),
                io.Image.Input("images", tooltip="The same, decoded."),
                Report.Input(
                    "report",
                    optional=True,  # so that the workflow runs where the check is bypassed
                    tooltip="The prompt's report, from Memorization Check: it says whether, the map where. Without one "
                    "nothing is looked at.",
                ),
                inputs.when(),
                io.Int.Input(
                    "probes",
                    default=4,
                    min=1,
                    max=256,
                    tooltip="More make the map less noisy, at two rows of cost each.",
                ),
                inputs.check_seed(),
            ],
            outputs=[
                io.Image.Output(display_name="overlay", tooltip="Image and map side by side, with a legend."),
                io.Mask.Output(display_name="mask", tooltip="What is likely memorized; empty if nothing is flagged."),
                io.Mask.Output(display_name="map", tooltip="The whole map, 0 to 1, whatever the verdict."),
                io.Float.Output(display_name="share", tooltip="Share of the images that the mask covers, 0 to 1."),
                Report.Output(display_name="report", tooltip="The same report with the share in it."),
                outputs.result(),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        positive: Any,
        samples: Any,
        images: Any,
        when: str,
        probes: int,
        check_seed: int,
        report: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        if report is None:
            return _unmasked(images, None, "not looked at: no report came in")
        denoiser = ComfyDenoiser(model, clip, like=positive)
        latents = still(model.model.process_latent_in(samples["samples"]).float())
        if len(latents) != len(images):
            raise InputError(
                f"{len(images)} images do not belong to a latent of shape {tuple(latents.shape)}: "
                "connect what the sampler gave, and the same decoded"
            )
        try:
            denoiser.require_guidance()
        except NotApplicable as reason:
            return _unmasked(images, report, f"not applicable: {reason}")
        condition, about = denoiser.read(positive)[[0]], read_report(report)
        locations = [
            _located(denoiser, condition, latent[None], image, about, probes, derived_seed(check_seed, i))
            for i, (latent, image) in enumerate(zip(latents, images, strict=True))
        ]
        masks = torch.stack([_mask(location, when) for location in locations])
        share = masks.mean().item()
        overlays = torch.stack([torch.from_numpy(np.array(location.overlay())).float() / 255 for location in locations])
        maps = torch.stack([location.map / location.map.max().clamp_min(1e-12) for location in locations])
        region = locations[0].report.region
        if region is not None and locations[0].mask is not None:
            region = replace(region, share=share)  # of all images
        located = replace(about, region=region).to_dict()
        return io.NodeOutput(overlays, masks, maps, share, located, _text(share, locations[0]))


def _unmasked(images: torch.Tensor, report: dict[str, Any] | None, text: str) -> io.NodeOutput:
    """Returns the images as they are, and an empty mask and map."""
    empty = torch.zeros(images.shape[:3])
    return io.NodeOutput(images, empty, empty, 0.0, report, text)


def _mask(location: Location, when: str) -> torch.Tensor:
    """Returns the mask, (H, W), 1 inside; of an image that is not flagged only where it is wanted always."""
    mask = location.region if when == "always" else location.mask
    return torch.zeros_like(location.map) if mask is None else mask.float()


def _located(
    denoiser: ComfyDenoiser,
    condition: Condition,
    latent: torch.Tensor,
    image: torch.Tensor,
    report: MemorizationReport,
    probes: int,
    seed: int,
) -> Location:
    late = Late.of_finished(denoiser, latent, condition, seed)
    return locate_late(denoiser, late, image.movedim(-1, 0), report, probes=probes)


def _text(share: float, location: Location) -> str:
    verdict = location.report.verdict
    if verdict == "memorized":
        return f"{100 * share:.1f} % of the image is likely memorized"
    area = f"; the mask covers where the map stands out, {100 * share:.1f} % of the image" if share else ""
    return f"the prompt's verdict is {verdict!r}: nothing is likely memorized{area}"


NODE = MemorizationHeatmap
