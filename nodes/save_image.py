"""Node: Save Image, with a provenance file beside every image."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy.cli_args import args
from comfy_api.latest import io, ui
from PIL.PngImagePlugin import PngInfo

from ..guard.errors import CryptomnesiaError, InputError
from ..guard.sidecar import save, sidecar_path, verify
from .generation import generation
from .host_files import numbered
from .inputs import MOST
from .parents import marking_of
from .values import CATEGORY, Finding, Report, Signature

COMPRESSION = 4  # as ComfyUI's own node


class SaveImageWithProvenance(io.ComfyNode):
    """Like Save Image; the sidecar says how the image was made, and what a check found."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaSaveImage",
            display_name="Save Image with Provenance",
            category=CATEGORY,
            description="Saves like Save Image, and beside each image a .cryptomnesia.json: digests of the file and "
            "its pixels, the models' digests, sampler settings, the prompt before and after, and what the check found. "
            "With `embed` it lies in the image's own file, too.",
            search_aliases=["cryptomnesia", "save image", "provenance", "c2pa", "sidecar", "metadata"],
            inputs=[
                io.Image.Input("images", tooltip="The images to save."),
                io.String.Input(
                    "filename_prefix",
                    default="ComfyUI",
                    tooltip="As in Save Image, with its %tokens%; a folder in it lies inside the output folder.",
                ),
                Report.Input("report", optional=True, tooltip="From a check, if there was one."),
                io.Combo.Input(
                    "prompts",
                    options=["plain", "hash", "none"],
                    tooltip="Whether the sidecar holds the prompts, only their SHA-256, or nothing of them. The "
                    "image's own metadata is another matter: start ComfyUI with --disable-metadata to leave that out.",
                ),
                io.Boolean.Input(
                    "sign",
                    default=False,
                    tooltip="Also write a signed .c2pa file, with the key that `cryptomnesia keys new` made or that is "
                    "configured; needs the package c2pa-python.",
                ),
                io.Autogrow.Input(
                    "findings",
                    template=io.Autogrow.TemplatePrefix(
                        io.MultiType.Input("finding", types=[Finding, Signature], optional=True),
                        prefix="finding",
                        min=0,
                        max=16,
                    ),
                    optional=True,
                    tooltip="What else was asked about the images or their model: from Attribute Image, Membership "
                    "Evidence, Model Lineage or Spectral Signature. What Memorization Heatmap found is in its report.",
                ),
                io.Int.Input(
                    "image_seed",
                    default=0,
                    min=0,
                    max=MOST - 1,
                    optional=True,
                    force_input=True,
                    tooltip="The seed that was used, where only the run knows it: from Guarded Noise.",
                ),
                io.Boolean.Input(
                    "embed",
                    default=False,
                    optional=True,
                    tooltip="Put the provenance into the image's own file: XMP, and a signed C2PA manifest where there "
                    "is a key. Then `sign` writes no further file.",
                ),
            ],
            outputs=[io.String.Output(display_name="paths", tooltip="The saved files, one per line.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        images: Any,
        filename_prefix: str,
        prompts: str,
        sign: bool,
        report: dict[str, Any] | None = None,
        findings: io.Autogrow.Type | None = None,
        image_seed: int | None = None,
        embed: bool = False,
    ) -> io.NodeOutput:
        kept = _per_image(list((findings or {}).values()), len(images))
        height, width = images[0].shape[:2]
        output = folder_paths.get_output_directory()
        folder, name, counter, subfolder, _ = numbered(filename_prefix, output, width, height)
        made = generation(cls.hidden.prompt or {}, str(cls.hidden.unique_id), report)
        made = made if image_seed is None else replace(made, seed=image_seed)
        results, paths, failures, marking = [], [], [], None
        try:
            marking = marking_of(cls.hidden.prompt or {}, str(cls.hidden.unique_id)) if embed else None
        except CryptomnesiaError as error:  # settings that cannot be used must not cost the images
            failures.append(error)
        for number, image in enumerate(images):
            file = f"{name.replace('%batch_num%', str(number))}_{counter + number:05}_.png"
            try:
                save(
                    _eight_bits(image),
                    Path(folder) / file,
                    report,
                    made,
                    prompts="none" if args.disable_metadata else prompts,  # type: ignore[arg-type]
                    findings=kept[number],
                    c2pa=sign or (None if embed else False),
                    embed=marking,
                    options={"pnginfo": _metadata(cls.hidden), "compress_level": COMPRESSION},
                )
            except CryptomnesiaError as error:  # the rest of the batch is saved all the same
                failures.append(error)
            results.append(ui.SavedResult(file, subfolder, io.FolderType.output))
            paths.append(str(Path(subfolder) / file))
        if failures:
            raise failures[0]
        inside = f"; in it: {_told(Path(output) / paths[0])}" if embed else ""
        shown = {"images": results, "text": [f"beside it: {sidecar_path(paths[0]).name}{inside}"]}
        return io.NodeOutput("\n".join(paths), ui=shown)


def _per_image(findings: list[Any], count: int) -> list[list[Any]]:
    """Returns for each image the findings about it; a finding of one entry is about them all, one of none is left out.

    Raises InputError for findings about another number of images.
    """
    rows = [finding if isinstance(finding, list) else [finding] for finding in findings if finding != []]
    for row in rows:
        if len(row) not in (1, count):
            raise InputError(f"a finding about {len(row)} images does not fit {count}: connect what was asked of these")
    return [[row[number % len(row)] for row in rows] for number in range(count)]


def _told(path: Path) -> str:
    """Returns what lies in the file, in a few words."""
    if verify(path).embedded == "manifest":
        return "a signed manifest"
    return "XMP without a signature, since there is no key: make one with `cryptomnesia keys new`"


def _eight_bits(image: Any) -> Any:
    """Returns eight bits per channel as Save Image makes them, which cuts off; NaN stays, for the error to tell."""
    image = image.cpu().clamp(0, 1)
    return image if image.isnan().any() else (image * 255).to(torch.uint8)


def _metadata(hidden: Any) -> PngInfo | None:
    """Returns what Save Image writes into the file: the workflow, unless ComfyUI was told not to."""
    if args.disable_metadata:
        return None
    metadata = PngInfo()
    if hidden.prompt is not None:
        metadata.add_text("prompt", json.dumps(hidden.prompt))
    for key, value in (hidden.extra_pnginfo or {}).items():
        metadata.add_text(key, json.dumps(value))
    return metadata


NODE = SaveImageWithProvenance
