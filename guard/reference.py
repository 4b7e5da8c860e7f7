"""What guidance is the difference to: how a prompt's pull is had on a model, whether or not it was distilled.

"empty branch": noise(c) - noise("") of a model that was trained without a prompt, too.
"guidance scales": [noise(c, w2) - noise(c, w1)] / (w2 - w1), where the scale w is an input of the network. One that
    learned u + w (c - u) gives back its teacher's guidance vector c - u.
"empty prompt": noise(c) - noise("") of any distilled model. One that learned u + w (c - u) for a fixed w gives w times
    the teacher's; a calibration on benign prompts of the same model need not know w.
"""

from collections.abc import Sequence
from typing import Literal

from .errors import InputError

Reference = Literal["empty branch", "guidance scales", "empty prompt"]
REFERENCES: tuple[Reference, ...] = ("empty branch", "guidance scales", "empty prompt")


def checked(reference: str, scales: Sequence[float], takes_scale: bool) -> Reference:
    """Returns a reference that was asked for.

    Args:
        reference: One of `REFERENCES`.
        scales: The two guidance scales that are compared, ascending.
        takes_scale: Whether the guidance scale is an input of the network.

    Raises:
        InputError: There is no such reference, or the model cannot have it.
    """
    if reference not in REFERENCES:
        raise InputError(f"unknown reference {reference!r}: use one of {', '.join(map(repr, REFERENCES))}")
    if reference == "guidance scales":
        if not takes_scale:
            raise InputError("the guidance scale is no input of this network: use the reference 'empty prompt'")
        if len(scales) != 2 or not 0 <= scales[0] < scales[1] < float("inf"):
            raise InputError(f"the reference 'guidance scales' compares two scales, ascending, not {scales}")
    return reference  # type: ignore[return-value]
