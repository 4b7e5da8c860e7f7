"""Node: the same prompts on a model and with several LoRAs, as a heat table."""

from typing import Any

import numpy as np
from comfy_api.latest import io

from ..guard.adapters.comfyui import ComfyDenoiser
from ..guard.errors import CryptomnesiaError, InputError
from ..guard.guard import Guard
from . import calibrations, inputs, loras, tables
from .images import picture
from .many_prompts import checked, prompts_of
from .memorization_table import NAME_TIP, saved
from .shown import on_node, state
from .values import CATEGORY, start_shape


class CompareLoras(io.ComfyNode):
    """Checks each prompt on the model as it comes and with each LoRA at each strength, all on the same noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaCompareLoras",
            display_name="Compare LoRAs",
            category=CATEGORY,
            description="Which LoRA makes a model reproduce training data, and from which strength on? Checks the same "
            "prompts on the model alone and with up to four LoRAs, on the same noise, and draws a heat table.",
            search_aliases=["cryptomnesia", "lora", "compare", "strength", "overfit"],
            inputs=[
                inputs.model(),
                inputs.clip(),
                inputs.latent(),
                io.String.Input("prompts", default="", multiline=True, tooltip="One prompt on each line."),
                loras.choice("lora_1"),
                loras.choice("lora_2"),
                loras.choice("lora_3"),
                loras.choice("lora_4"),
                io.String.Input(
                    "strengths",
                    default="0.5, 1.0",
                    tooltip="The strengths to try, with commas between them, at most 6.",
                ),
                io.String.Input("filename_prefix", default="cryptomnesia/loras", tooltip=NAME_TIP),
                inputs.draws(),
                inputs.check_seed(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="table", tooltip="Scores as colours; ! where a calibration says memorized."
                ),
                io.String.Output(display_name="text", tooltip="The same in plain words."),
                io.String.Output(display_name="csv", tooltip="The CSV file's path in the output folder, or nothing."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        latent: Any,
        prompts: str,
        lora_1: str,
        lora_2: str,
        lora_3: str,
        lora_4: str,
        strengths: str,
        filename_prefix: str,
        draws: int,
        check_seed: int,
    ) -> io.NodeOutput:
        texts, notes = prompts_of([prompts])
        chosen = [name for name in dict.fromkeys((lora_1, lora_2, lora_3, lora_4)) if name != loras.NONE]
        if not chosen:
            raise InputError("no LoRA was chosen: there is nothing to compare the model with")
        names, columns = [], []
        for name, strength in [
            (None, 0.0),
            *((name, value) for name in chosen for value in loras.strengths_of(strengths)),
        ]:
            patched = (model, clip) if name is None else loras.with_lora(model, clip, name, strength)
            names.append("model alone" if name is None else f"{name.rsplit('.', 1)[0]} {strength:g}")
            columns.append(_column(*patched, latent, texts, draws, check_seed))
        scores = np.array([[cell[0] for cell in column] for column in columns], dtype=np.float64).T
        marks = [[column[row][1] for column in columns] for row in range(len(texts))]
        rows = [
            {"prompt": text, **{name: _or_none(scores[row, i]) for i, name in enumerate(names)}}
            for row, text in enumerate(texts)
        ]
        csv = saved(filename_prefix, tables.as_csv(rows, ["prompt", *names]))
        means = np.nanmean(scores, axis=0).tolist()
        lines = [_in_words(name, mean, means[0]) for name, mean in zip(names, means, strict=True)]
        text = "\n".join(
            ["mean score; higher: more likely memorized, and only comparable in one table", *lines, *notes]
        )
        shown = on_node(state("table", detail=f"{len(texts)} prompts on {len(names)} models"), text)
        return io.NodeOutput(picture(tables.heat(names, texts, scores, marks)), text, csv, ui=shown)


def _column(model: Any, clip: Any, latent: Any, texts: list[str], draws: int, seed: int) -> list[tuple[float, str]]:
    """Returns the raw score of each prompt, comparable over models, and what to write in its cell."""
    denoiser = ComfyDenoiser(model, clip)
    denoiser.require_guidance()
    shape = start_shape(model, latent)
    calibrated, _ = calibrations.find(calibrations.AUTOMATIC, denoiser, draws, shape)
    cells = []
    for result in checked(Guard(denoiser, calibrated), texts, shape, seed=seed, draws=draws):
        if isinstance(result, CryptomnesiaError) or result.iso is None:
            cells.append((float("nan"), "-"))
        else:
            cells.append((float(result.iso), f"{result.iso:.3g}{' !' if result.memorized else ''}"))
    return cells


def _in_words(name: str, mean: float, alone: float) -> str:
    return f"{name}: {mean:.3g}, {mean / alone:.2f} times the model alone" if alone > 0 else f"{name}: {mean:.3g}"


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


NODE = CompareLoras
