"""What was judged at the first step, and whether all later steps of the same call sample just that.

A callback can put other embeddings, another network or other weights in place once the check is over.
"""

from typing import Any

import torch
from torch import Tensor

from ..adapters.modules import adapter_scales, edits
from ..adapters.network_calls import read_call
from ..condition import without_step
from ..denoiser import Condition, Denoiser
from ..errors import NotApplicable
from ..protocols import PipelineDenoiser
from .first_step import FirstStep

PROMPT_CHANGED = "the prompt was changed while sampling"
MODEL_CHANGED = "the model was changed while sampling"
Difference = tuple[list[int], str]  # which images, and why


class Judged:
    """The conditions of one row per image, and the model, that a verdict is about.

    Args:
        denoiser, host: The model, as what it is and as what its pipeline adds.
        step: The first step that was judged.
        fingerprint: The model's fingerprint at that time.
        suspicious: Also look at the network's weights and LoRAs before every step, since code of the user's runs then.
    """

    def __init__(
        self, denoiser: Denoiser, host: PipelineDenoiser, step: FirstStep, fingerprint: str | None, suspicious: bool
    ):
        self.denoiser, self.host, self.positive, self.negative = denoiser, host, step.positive, step.negative
        self.network, self.fingerprint = host.network, fingerprint
        self.state = _state(self.network) if suspicious else None
        self._same: dict[str, tuple[Tensor, int]] = {}
        self._lone_negative: float | None = None
        self._lone_positive: float | None = step.time if step.negative is None else None
        self._apart: bool | None = None if step.negative is None else False  # whether branches have calls of their own

    def compare(self, arguments: dict[str, Any], output: Any) -> Difference | None:
        """Returns how a later call of the network differs from what was judged; None if it does not.

        The negative branch may change, since the verdict compares the prompt with the empty one. Either branch may be
        left out, or be asked in a call of its own, but not the negative one alone.
        """
        everything = list(range(len(self.positive)))
        if self.state is not None and _state(self.network) != self.state:
            return everything, MODEL_CHANGED
        try:
            x, time, condition, _ = read_call(self.host, arguments, output)
        except NotApplicable as reason:
            return everything, f"{PROMPT_CHANGED}: {reason}"
        condition = without_step(condition)
        images, rows = len(self.positive), len(condition)
        if rows != len(x) or rows % images:
            return everything, f"{PROMPT_CHANGED}: the network is asked with {rows} rows for {images} images"
        if self._lone_negative is None and self._unchanged(condition):
            return None
        parts = [condition[i : i + images] for i in range(0, rows, images)]
        changed = self._alone(parts[0], float(torch.as_tensor(time).flatten()[0])) if len(parts) == 1 else None
        if changed is None:
            changed = [i for part in parts[-1:] + parts[1:-1] for i in _differing(part, self.positive)]
        if changed:
            return sorted(set(changed)), PROMPT_CHANGED
        if len(parts) > 1:
            self._keep(condition)
        return None

    def _alone(self, part: Condition, time: float) -> list[int]:
        """Images whose prompt a call of one branch changes; a negative one belongs to a positive one at its side."""
        everything, waiting, beside = list(range(len(part))), self._lone_negative, self._lone_positive
        changed = _differing(part, self.positive)
        self._lone_negative = self._lone_positive = None
        if not changed:
            if waiting is None:
                self._apart = self._apart or (None if beside in (None, time) else False)
                self._lone_positive = time
            return [] if waiting in (None, time) else everything
        if waiting is None and beside == time and self._apart is not False:
            self._apart = True  # seen beside the first prompt already, before any callback ran
            return []
        if waiting is None and self.negative is not None and not _differing(part, self.negative):
            if beside != time:
                self._lone_negative = time
            return []
        return changed

    def at_the_end(self) -> Difference | None:
        """Returns what is to be seen once all is sampled: another network or weights, or a branch that never came."""
        everything = list(range(len(self.positive)))
        if self._lone_negative is not None:
            return everything, PROMPT_CHANGED
        # a device's tensors may have been changed behind their version counters' back
        kept = {name: tensor for name, (tensor, _) in self._same.items() if tensor.device.type != "cpu"}
        if any(not torch.equal(t[-len(self.positive) :], self.positive.tensors[n]) for n, t in kept.items()):
            return everything, PROMPT_CHANGED
        if self.host.network is not self.network or self.denoiser.fingerprint != self.fingerprint:
            return everything, MODEL_CHANGED
        return None

    def _unchanged(self, condition: Condition) -> bool:
        """Whether these are the very tensors that were compared before, so that a device need not be waited for."""
        return self._same.keys() == condition.tensors.keys() and all(
            tensor.device.type != "cpu"
            and self._same[name][0] is tensor
            and self._same[name][1] == _version(tensor) != -1
            for name, tensor in condition.tensors.items()
        )

    def _keep(self, condition: Condition) -> None:
        self._same = {name: (tensor, _version(tensor)) for name, tensor in condition.tensors.items()}


def _differing(rows: Condition, judged: Condition) -> list[int]:
    if rows.tensors.keys() != judged.tensors.keys():
        return list(range(len(judged)))
    return [
        i
        for i in range(len(judged))
        if any(not _equal(rows.tensors[name][i], tensor[i]) for name, tensor in judged.tensors.items())
    ]


def _equal(one: Tensor, other: Tensor) -> bool:
    # what is moved or converted meanwhile is another condition: no pipeline does that between its steps
    return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _state(network: Any) -> Any:
    """What changes with the weights and LoRAs of a network, at next to no cost."""
    return edits(network), adapter_scales(network)
