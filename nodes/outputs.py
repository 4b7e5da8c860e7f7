"""Outputs that several nodes share, with their tooltips."""

from typing import Any

from comfy_api.latest import io

from .values import Finding, Report


def result() -> Any:
    """What came out, for people."""
    return io.String.Output(display_name="text", tooltip="The result in plain words.")


def answer() -> Any:
    """What was found of images and models, for people."""
    return io.String.Output(display_name="text", tooltip="The answer in plain words, and what it rests on.")


def finding() -> Any:
    """The same, for a provenance file."""
    return Finding.Output(display_name="finding", tooltip="For Save Image with Provenance.")


def report() -> Any:
    """What the check says once the prompt is mitigated."""
    return Report.Output(display_name="report", tooltip="On what comes out; for the gate and the provenance file.")


def signature_plot() -> Any:
    """A signature, for people."""
    return io.Image.Output(display_name="plot", tooltip="The mean signature as heat maps, with a legend.")
