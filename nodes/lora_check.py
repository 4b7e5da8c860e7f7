"""Node: which prompts does a LoRA memorize that its base does not?"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.utils
import folder_paths
import numpy as np
from comfy_api.latest import io

from ..guard.adapters.comfyui import ComfyDenoiser
from ..guard.errors import InputError
from ..guard.lora import LoraCheck, PromptFinding, read_lora
from ..guard.lora.checking import candidates, check_strengths, normal_prompts, results
from ..guard.lora.measuring import measure
from ..guard.lora.results import MEMORIZED, WORDS, Cell
from ..guard.printable import printable_line
from ..guard.prompts import benign as benign_of
from . import inputs, loras, tables
from .images import picture
from .many_prompts import prompts_of
from .memorization_table import NAME_TIP, saved
from .shown import on_node, state
from .values import CATEGORY, start_shape


class LoraCheckNode(io.ComfyNode):
    """Checks a LoRA's own prompts, or others, on the model with and without it, all on the same noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaLoraCheck",
            display_name="LoRA Check",
            category=CATEGORY,
            description="Which prompts does a LoRA memorize that its base does not? Takes them from the LoRA's own "
            "metadata, and checks them without it and at several strengths, beside benign prompts on the same noise.",
            search_aliases=["cryptomnesia", "lora", "memorized", "overfit", "training captions", "trigger words"],
            inputs=[
                io.Model.Input("model", tooltip="The base: the model without the LoRA."),
                inputs.clip(),
                inputs.latent(),
                loras.choice("lora"),
                io.String.Input(
                    "strengths",
                    default="0.5, 1.0",
                    tooltip="The strengths to try beside the base, with commas between them; findings are about the "
                    "highest.",
                ),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    tooltip="One prompt on each line; empty: the captions, tags and trigger words that the LoRA's own "
                    "metadata tell of.",
                ),
                inputs.alpha(0.01, "The false-alarm rate to promise per prompt."),
                io.String.Input("filename_prefix", default="cryptomnesia/lora", tooltip=NAME_TIP),
                inputs.draws(),
                inputs.check_seed(),
                io.String.Input(
                    "benign",
                    default="",
                    multiline=True,
                    tooltip="Benign prompts like your own, one per line, at least 100; empty: a list of 486 that ships "
                    "with the pack.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="table", tooltip="p-values, the worst prompts first; ! where the LoRA memorized one."
                ),
                io.String.Output(display_name="text", tooltip="The answer in plain words, and each prompt."),
                io.String.Output(display_name="csv", tooltip="The CSV file's path in the output folder, or nothing."),
                io.String.Output(
                    display_name="memorized",
                    is_output_list=True,
                    tooltip="The prompts that the LoRA likely memorized, as a list; empty where there is none.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        latent: Any,
        lora: str,
        strengths: str,
        prompts: str,
        alpha: float,
        filename_prefix: str,
        draws: int,
        check_seed: int,
        benign: str,
    ) -> io.NodeOutput:
        if lora == loras.NONE:
            raise InputError("no LoRA was chosen: there is nothing to compare the model with")
        file = read_lora(Path(folder_paths.get_full_path_or_raise("loras", lora)))
        texts, notes = prompts_of([prompts]) if prompts.strip() else (None, [])
        chosen = candidates(file, texts)
        tried = check_strengths(loras.strengths_of(strengths))
        normal = normal_prompts(benign_of(benign.splitlines()), alpha, draws)
        count = loras.fitting(model, clip, file)
        if count < len(file.updates):
            notes.append(
                f"ComfyUI finds {count} of the LoRA's {len(file.updates)} layers in the model: the rest is idle"
            )
        bar = comfy.utils.ProgressBar(len(tried) * (len(normal) + len(chosen)))

        @contextmanager
        def at(strength: float) -> Iterator[ComfyDenoiser]:
            both = loras.with_lora(model, clip, lora, strength) if strength else (model, clip)
            denoiser = ComfyDenoiser(*both)
            denoiser.require_guidance()
            yield denoiser

        shape = start_shape(model, latent)
        everything = normal + [candidate.text for candidate in chosen]
        energies, _ = measure(
            at,
            tried,
            everything,
            draws=draws,
            seed=check_seed,
            shape=shape,
            progress=lambda done, total: bar.update_absolute(done, total),
        )
        check = results(chosen, energies, tried, len(normal), alpha)
        return _output(replace(check, lora=file.name, notes=[*file.notes, *notes]), filename_prefix)


def _output(check: LoraCheck, filename_prefix: str) -> io.NodeOutput:
    ordered = check.ordered
    columns = ["base" if strength == 0 else f"at {strength:g}" for strength in check.strengths]
    rows = [
        {
            "prompt": prompt.text,
            "source": prompt.source,
            "finding": WORDS[prompt.finding],
            "p_value": prompt.p_value,
            "adjusted": prompt.adjusted,
            "from_strength": prompt.from_strength,
            **{column: cell.shown for column, cell in zip(columns, prompt.cells, strict=True)},
        }
        for prompt in ordered
    ]
    csv = saved(filename_prefix, tables.as_csv(rows, list(rows[0])))
    scores = np.array([[cell.score for cell in prompt.cells] for prompt in ordered], dtype=np.float64)
    marks = [[_mark(prompt, cell, check.alpha) for cell in prompt.cells] for prompt in ordered]
    lines = [f"{prompt.p_value:>8.3f}  {WORDS[prompt.finding]}: {printable_line(prompt.text)}" for prompt in ordered]
    text = "\n".join([check.headline(), *lines, *check.remarks()])
    image = picture(tables.heat(columns, [prompt.text for prompt in ordered], scores, marks))
    found = [prompt.text for prompt in check.of(MEMORIZED)]
    shown = on_node(state("table", detail=f"{len(found)} of {len(ordered)} prompts memorized by the LoRA"), text)
    return io.NodeOutput(image, text, csv, found, ui=shown)


def _mark(prompt: PromptFinding, cell: Cell, alpha: float) -> str:
    memorized = prompt.finding == MEMORIZED and cell.strength and cell.p_both <= alpha
    return f"p {cell.shown:.3f}{' !' if memorized else ''}"


NODE = LoraCheckNode
