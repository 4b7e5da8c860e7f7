"""Outputs that several nodes share, with their tooltips."""

from typing import Any

from comfy_api.latest import io

from .values import Finding, Report


def result() -> Any:
    """Returns an output for the result in plain words."""
    return io.String.Output(display_name="text", tooltip="The result in plain words.")


def answer() -> Any:
    """Returns an output for the answer about images and models in plain words."""
    return io.String.Output(display_name="text", tooltip="The answer in plain words, and what it rests on.")


def finding() -> Any:
    """Returns an output for the answer as data, for a provenance file."""
    return Finding.Output(display_name="finding", tooltip="For Save Image with Provenance.")


def report() -> Any:
    """Returns an output for the report once the prompt is mitigated."""
    return Report.Output(display_name="report", tooltip="On what comes out; for the gate and the provenance file.")


def signature_plot() -> Any:
    """Returns an output for a signature as a picture."""
    return io.Image.Output(display_name="plot", tooltip="The mean signature as heat maps, with a legend.")
