"""Node: does an image still fit its provenance file?"""

import os
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..guard.errors import InputError
from ..guard.sidecar import verify
from .shown import on_node, state
from .values import CATEGORY

FOLDERS = ["output", "input", "temp"]


class VerifyProvenance(io.ComfyNode):
    """Reads the files themselves: an IMAGE in a workflow has neither metadata nor a name."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaVerifyProvenance",
            display_name="Verify Provenance",
            category=CATEGORY,
            description="Compares saved images with the provenance files beside them, and says what holds: the file, "
            "its pixels, the signature, and what the check found when it was made.",
            search_aliases=["cryptomnesia", "verify", "provenance", "c2pa"],
            inputs=[
                io.String.Input(
                    "paths",
                    tooltip="Image files, one per line, inside the folder below; or the paths that Save Image with "
                    "Provenance gives.",
                ),
                io.Combo.Input("folder", options=FOLDERS, tooltip="Which of ComfyUI's folders they are in."),
            ],
            outputs=[
                io.Boolean.Output(
                    display_name="matches", tooltip="True if every image and its files are as its sidecar says."
                ),
                io.String.Output(display_name="text", tooltip="What holds and what does not, in plain words."),
            ],
            is_output_node=True,
            not_idempotent=True,
        )

    @classmethod
    def fingerprint_inputs(cls, paths: str | None, folder: str) -> Any:
        return float("nan")  # files change behind the workflow's back

    @classmethod
    def execute(cls, paths: str, folder: str) -> io.NodeOutput:
        names = [name for line in paths.splitlines() if (name := line.strip())]
        if not names:
            raise InputError("no file was named: give the path of an image, or connect Save Image with Provenance")
        results = [verify(_inside(name, folder)) for name in names]
        shown = zip(names, results, strict=True)
        text = "\n\n".join("\n".join([f"{name}: {result.headline}", *result.lines]) for name, result in shown)
        shown = on_node([state(result.result) for result in results], text)
        return io.NodeOutput(all(result.matches for result in results), text, ui=shown)


def _inside(name: str, folder: str) -> Path:
    root = os.path.realpath(folder_paths.get_directory_by_type(folder))
    try:
        path = os.path.realpath(os.path.join(root, name))
        inside = os.path.commonpath([root, path]) == root
    except ValueError:  # no path at all, or on another drive
        path, inside = name, False
    if not inside:
        raise InputError(f"{name!r} is not inside the {folder} folder: only ComfyUI's own folders are read")
    return Path(path)


NODE = VerifyProvenance
