"""Node: does an image still fit its provenance file?"""

from typing import Any

from comfy_api.latest import io

from ..guard.errors import InputError
from ..guard.sidecar import Checker
from ..guard.sidecar.keys import STORE, setting, trusted
from .host_files import FOLDERS, inside
from .shown import on_node, state
from .values import CATEGORY

NOTHING = "nothing was verified: no path came in"


class VerifyProvenance(io.ComfyNode):
    """Reads the files themselves: an IMAGE in a workflow has neither metadata nor a name."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaVerifyProvenance",
            display_name="Verify Provenance",
            category=CATEGORY,
            description="Compares saved images with the provenance in them and beside them, and says what holds: the "
            "file, its pixels, the signature, and what the check found when it was made.",
            search_aliases=["cryptomnesia", "verify", "provenance", "c2pa"],
            inputs=[
                # both optional, so that the workflow runs where the node that saves is bypassed or muted
                io.String.Input(
                    "paths",
                    optional=True,
                    tooltip="Image files, one per line, inside the folder below; or the paths that Save Image with "
                    "Provenance gives.",
                ),
                io.Combo.Input(
                    "folder", options=FOLDERS, optional=True, tooltip="Which of ComfyUI's folders they are in."
                ),
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
    def fingerprint_inputs(cls, **_: Any) -> Any:
        return float("nan")  # files change behind the workflow's back

    @classmethod
    def execute(cls, paths: str | None = None, folder: str = FOLDERS[0]) -> io.NodeOutput:
        if paths is None:
            return io.NodeOutput(False, NOTHING, ui=on_node(state("cannot tell", reason=NOTHING), NOTHING))
        names = [name for line in paths.splitlines() if (name := line.strip())]
        if not names:
            raise InputError("no file was named: give the path of an image, or connect Save Image with Provenance")
        with Checker(trust=trusted(), store=setting(STORE)) as checker:
            results = [checker.verify(inside(name, folder)) for name in names]
        shown = zip(names, results, strict=True)
        text = "\n\n".join("\n".join([f"{name}: {result.headline}", *result.lines]) for name, result in shown)
        shown = on_node([state(result.result) for result in results], text)
        return io.NodeOutput(all(result.matches for result in results), text, ui=shown)


NODE = VerifyProvenance
