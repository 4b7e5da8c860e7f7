"""Node: which of these models made this image, or none of them?"""

from typing import Any

import comfy.utils
from comfy_api.latest import io

from ..guard.attribution import Attribution, attribute
from ..guard.attribution.combination import ALPHA
from ..guard.attribution.plots import percent
from ..guard.pixels import read_picture
from . import inputs, outputs
from .attribution_learning import KnownCandidate, few, learned
from .images import arrays, notice, pictures
from .values import CATEGORY, Candidate

NOT_TESTED = "not tested"  # as Model Lineage says it
FEW = "Attribute Image needs two candidates or more, and {}: nothing was asked. Is one of them muted?"


class AttributeImage(io.ComfyNode):
    """Asks every candidate about each image, as `guard.attribution` does."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CryptomnesiaAttributeImage",
            display_name="Attribute Image",
            category=CATEGORY,
            description="Which of several models made an image, as likelihoods; the answer may be none of these. "
            "Learns first from the candidates' own images, which is remembered.",
            search_aliases=["cryptomnesia", "attribution", "who made this", "which model", "source", "fingerprint"],
            inputs=[
                io.Image.Input("images", tooltip="What to ask about, unaltered; each image of a batch gets an answer."),
                io.Autogrow.Input(
                    "candidates",
                    template=io.Autogrow.TemplatePrefix(
                        Candidate.Input("candidate", tooltip="From Attribution Candidate."),
                        prefix="candidate",
                        min=0,  # a candidate that is muted is not sent: the workflow runs without it
                        max=32,
                    ),
                    tooltip="The models that come into question, two or more, each from Attribution Candidate.",
                ),
                inputs.alpha(ALPHA, "Share of the candidates' images that may be called none of these; .05 needs 19."),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="The images' prompt, if known: much stronger evidence. The candidates need theirs, then.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="plot", tooltip="The likelihoods as bars, one picture per image."),
                io.String.Output(
                    display_name="decision",
                    tooltip="A candidate's name, 'none of these', or, without a verdict, 'confounded', 'learned "
                    "from' or 'not tested'; one line per image.",
                ),
                outputs.answer(),
                outputs.finding(),
            ],
        )

    @classmethod
    def execute(
        cls, images: Any, alpha: float, candidates: io.Autogrow.Type | None = None, prompt: str = ""
    ) -> io.NodeOutput:
        pool: list[KnownCandidate] = list((candidates or {}).values())
        if len(pool) < 2:
            words = FEW.format(f"{len(pool)} came in" if pool else "none came in")
            return io.NodeOutput(notice(words), "\n".join([NOT_TESTED] * len(images)), words, [])
        # a picture that cannot be read is told of before anything is learned
        pictured = [read_picture(image, f"image {number}") for number, image in enumerate(arrays([images]), 1)]
        bar = comfy.utils.ProgressBar(2 * len(pool))
        prompted = bool(prompt.strip())
        calibration = learned(pool, prompted, alpha, lambda done, _: bar.update_absolute(done))
        answers = attribute(
            pictured,
            [known.candidate for known in pool],
            calibration,
            prompts=prompt.strip() if prompted else None,
            progress=lambda done, _: bar.update_absolute(len(pool) + done),
        )
        plots = pictures([answer.plot() for answer in answers])
        text = "\n\n".join("\n".join(_words(answer)) for answer in answers)
        more = few(calibration)
        return io.NodeOutput(
            plots,
            "\n".join(answer.decision for answer in answers),
            text if more is None else f"{text}\n\n{more}",
            [answer.to_dict() for answer in answers],
        )


def _words(answer: Attribution) -> list[str]:
    """Returns the answer in plain words, a line each, likeliest first."""
    ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])
    return [answer.headline(), *(f"  {percent(probability)}  {name}" for name, probability in ranked), *answer.notes()]


NODE = AttributeImage
