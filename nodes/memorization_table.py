"""Node: many prompts checked, as one table."""

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..guard.adapters.comfyui import ComfyDenoiser
from ..guard.files import write_file
from ..guard.guard import Guard
from ..guard.printable import first_line
from ..guard.report import MemorizationReport
from . import calibrations, inputs, tables
from .host_files import numbered
from .images import picture
from .many_prompts import checked, prompts_of
from .shown import on_node, state
from .values import CATEGORY, Report, start_shape

NAME_TIP = "The CSV file's name in the output folder, as in Save Image; empty: no file is written."


class MemorizationTable(io.ComfyNode):
    """Takes lists as they come, e.g. of wildcards, and gives one answer on all of them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaMemorizationTable",
            display_name="Memorization Table",
            category=CATEGORY,
            description="Checks many prompts before anything is sampled: lines, a list from a wildcard node, or a file."
            " Gives one table of scores, p-values and verdicts, as a picture, as text and as a CSV file.",
            search_aliases=["cryptomnesia", "batch", "list", "wildcards", "csv", "prompts from file"],
            inputs=[
                inputs.model(),
                inputs.clip(),
                inputs.latent(),
                io.String.Input(
                    "prompts", default="", multiline=True, tooltip="One prompt on each line; or a list of texts."
                ),
                io.String.Input(
                    "file",
                    default="",
                    tooltip="A file of prompts in ComfyUI's input folder: txt, csv, tsv, json, jsonl or parquet. "
                    "Empty: none.",
                ),
                io.String.Input("filename_prefix", default="cryptomnesia/table", tooltip=NAME_TIP),
                inputs.calibration(),
                inputs.check_seed(),
            ],
            outputs=[
                io.Image.Output(display_name="table", tooltip="The table as a picture, the most suspicious first."),
                io.String.Output(display_name="text", tooltip="The table as plain text."),
                io.String.Output(display_name="csv", tooltip="The CSV file's path in the output folder, or nothing."),
                io.String.Output(display_name="prompts", is_output_list=True, tooltip="The prompts, as a list."),
                Report.Output(display_name="reports", is_output_list=True, tooltip="A report on each, as a list."),
            ],
            is_input_list=True,
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, calibration: Any, file: Any, **_: Any) -> Any:
        """Returns the state of the calibrations and of the file, which may change behind the workflow's back."""
        name = str((file or [""])[0] or "").strip()
        path = Path(folder_paths.get_input_directory()) / name
        changed = path.stat().st_mtime if name and path.is_file() else None
        return calibrations.state(calibration[0]), changed

    @classmethod
    def execute(
        cls,
        model: list[Any],
        clip: list[Any],
        latent: list[Any],
        prompts: list[str],
        file: list[str],
        filename_prefix: list[str],
        calibration: list[str],
        check_seed: list[int],
    ) -> io.NodeOutput:
        texts, notes = prompts_of(prompts, file[0])
        denoiser = ComfyDenoiser(model[0], clip[0])
        denoiser.require_guidance()
        shape = start_shape(model[0], latent[0])
        found, missing = calibrations.find(calibration[0], denoiser, None, shape)
        guard = Guard(denoiser, found)
        guard.why_uncalibrated = missing
        results = list(checked(guard, texts, shape, seed=check_seed[0], draws=None))
        rows = [row_of(text, result) for text, result in zip(texts, results, strict=True)]
        notes += [text for text in (missing, denoiser.note) if text]
        text = "\n".join([tables.as_text(rows), *notes])
        name = saved(filename_prefix[0], tables.as_csv(rows))
        reports = [result.to_dict() if isinstance(result, MemorizationReport) else None for result in results]
        entries = [state(row["verdict"], p_value=row["p_value"]) for row in rows if row["verdict"] != FAILED]
        shown = on_node(entries or [state("not applicable")], text) | {"cryptomnesia_rows": rows}
        return io.NodeOutput(picture(tables.picture(rows)), text, name, texts, reports, ui=shown)


FAILED = "not checked"


def row_of(prompt: str, result: Any) -> dict[str, Any]:
    """Returns a row of the table: what was found, or why nothing was."""
    if not isinstance(result, MemorizationReport):
        return {"prompt": prompt, "score": None, "p_value": None, "verdict": FAILED, "reason": first_line(result)}
    return {
        "prompt": prompt,
        "score": result.score,
        "p_value": result.p_value,
        "verdict": result.verdict,
        "reason": result.reason,
    }


def saved(prefix: str, content: bytes) -> str:
    """Writes a CSV file into the output folder and returns its path there; nothing for an empty name."""
    if not prefix.strip():
        return ""
    folder, name, counter, subfolder, _ = numbered(prefix, folder_paths.get_output_directory(), 0, 0)
    file = f"{name}_{counter:05}_.csv"
    write_file(Path(folder) / file, content, "the table")
    return str(Path(subfolder) / file)


NODE = MemorizationTable
