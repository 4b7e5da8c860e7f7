"""Weights of text encoders that some hosts keep and others do not, and that no answer hangs on."""

import torch
from torch import Tensor

_UNUSED = ("logit_scale", "position_ids")


def is_read(name: str, weight: Tensor) -> bool:
    """Returns whether a weight takes part in what a network answers, so that a fingerprint counts it.

    Args:
        name: The weight's name in the module's state.
        weight: The weight; a text projection that is the identity does nothing, and stands for none.
    """
    if name.endswith(_UNUSED):
        return False
    square = weight.ndim == 2 and weight.shape[0] == weight.shape[1]
    if not square or not name.endswith(("text_projection", "text_projection.weight")):
        return True
    return not bool((weight.float().cpu() == torch.eye(len(weight))).all())
