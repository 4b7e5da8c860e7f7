"""What work costs, in a measure that people know: images of 50 steps."""

from .denoiser import Denoiser

STEPS = 50


def rows_per_image(denoiser: Denoiser) -> int:
    """Returns the rows of the network that an image of 50 steps takes: one a step, and two with guidance by branches.

    A model whose prompts are compared with something else than the empty branch is distilled, and has one.
    """
    return STEPS * (2 if denoiser.reference == "empty branch" else 1)


def in_words(rows: int, images: float) -> str:
    """Returns a cost in words: "1,440 rows of the network, as many as 14 images of 50 steps".

    Args:
        rows: Rows of the network.
        images: As many images of 50 steps as that; fewer than three are told to a tenth.
    """
    told = f"{images:.0f}" if images >= 3 else f"{max(0.1, images):.1f}".removesuffix(".0")
    noun = "image" if told == "1" else "images"
    return f"{rows:,} {'row' if rows == 1 else 'rows'} of the network, as many as {told} {noun} of {STEPS} steps"
