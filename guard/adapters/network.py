"""The network that a diffusers pipeline holds, and how guidance is had on it.

Everything is read from the pipe when it is asked for, so that a swapped network or another scheduler is seen.
"""

from typing import Any

import torch
from torch import Tensor

from ..branches import SCALE
from ..denoiser import Condition, Denoiser, Prediction
from ..errors import CryptomnesiaError, InputError, NotApplicable
from ..identity import origin
from ..levels import NoiseLevel
from ..printable import first_line
from ..reference import Reference, checked
from .modules import replaced_by
from .offloaded import first_weight
from .plain_calls import plainly

FEW_STEPS = ("LCMScheduler", "TCDScheduler")  # which start at the last timestep, and nowhere near 981


class PipelineNetwork(Denoiser):
    """The network of a text-to-image pipeline.

    Attributes:
        pipe: The pipeline, unchanged.
        network_name: The pipeline's attribute that holds the denoising network.
        networks: The classes of network that belong to the family, by name.
        guidance_scale: What networks are told whose input it is; the pipeline's own default.
    """

    network_name = "transformer"
    networks: tuple[str, ...] = ()
    guidance_scale = 1.0

    def __init__(self, pipe: Any):
        self.pipe = pipe
        self._reference: Reference | None = None
        self._network_class: type | None = None

    @property
    def network(self) -> Any:
        """The denoising network that the pipe holds now. Raises InputError where it is another family's."""
        network = getattr(self.pipe, self.network_name)
        if type(network) is not self._network_class:
            self._require_own(network)
            self._network_class = type(network)
        return network

    def _require_own(self, network: Any) -> None:
        network = getattr(network, "_orig_mod", network)
        names = [base.__name__ for base in type(network).__mro__]
        ours = not self.networks or any(name in self.networks for name in names)
        if not ours and origin(network).startswith("diffusers."):
            raise InputError(
                f"this {type(self.pipe).__name__} holds a {names[0]}, and not a {' or '.join(self.networks)}: give the "
                "network that belongs to the pipeline, or wrap yours as a CallableDenoiser"
            )

    @property
    def text_encoders(self) -> list[Any]:
        """The text encoders that the pipe holds now, in order."""
        names = ("text_encoder", "text_encoder_2", "text_encoder_3")
        return [encoder for name in names if (encoder := getattr(self.pipe, name, None)) is not None]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        network = self.network
        # an offloaded network rests elsewhere than where it computes; finding out is slow
        offloaded = hasattr(network, "_hf_hook") or hasattr(network, "_diffusers_hook")
        if offloaded:
            return torch.device(self.pipe._execution_device)
        first = first_weight(network)
        return torch.device(network.device) if first is None else first.device

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        first = first_weight(self.network)
        return self.network.dtype if first is None else first.dtype

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        """False for networks in ONNX files."""
        return getattr(self.network, "differentiable", True)

    def predict(self, x: Tensor, level: NoiseLevel, condition: Condition | Tensor, *, grad: bool = False) -> Prediction:
        """Splits noisy latents, as `Denoiser.predict`, by the network without its compiler and caches.

        Raises also NotApplicable where somebody's code stands in for a part of the network and cannot be asked.
        """
        try:
            with plainly(self.network, grad=grad):
                return super().predict(x, level, condition, grad=grad)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            stranger = None if isinstance(error, CryptomnesiaError) else replaced_by(self.network)
            if stranger is None:
                raise
            raise NotApplicable(
                f"{stranger} stands in for a part of the network, and fails where it is asked beside the sampler "
                f"({first_line(error)}): take that off to ask about prompts"
            ) from error

    # --- guidance ---

    @property
    def takes_scale(self) -> bool:
        """Whether the guidance scale is an input of the network. Raises InputError where configuration and weights
        contradict each other."""
        return False

    @property
    def distilled(self) -> bool:
        """Whether the pipeline tells that nobody trained its network without a prompt."""
        return (
            self.takes_scale
            or bool(self.pipe.config.get("is_distilled"))
            or type(self.pipe.scheduler).__name__ in FEW_STEPS
        )

    @property
    def reference(self) -> Reference:  # type: ignore[override]
        """What a prompt's answer is compared with, as was set; by default the empty prompt, called the empty branch
        where the network is not known to be distilled."""
        if self._reference is not None:
            return checked(self._reference, self.scales, self.takes_scale)
        return "empty prompt" if self.distilled else "empty branch"

    @reference.setter
    def reference(self, reference: Reference) -> None:  # type: ignore[override]
        self._reference = checked(reference, self.scales, self.takes_scale)

    @property
    def scales(self) -> tuple[float, float]:  # type: ignore[override]
        """No guidance, and the pipeline's own."""
        return 1.0, self.guidance_scale

    def require_guidance(self) -> None:
        """Raises InputError where the pipeline cannot read prompts."""
        self._require_text()

    def _require_text(self) -> None:
        parts = self.pipe.components
        for kind in ("text_encoder", "tokenizer"):
            if not any(part is not None for name, part in parts.items() if name.startswith(kind)):
                raise InputError(
                    f"this {type(self.pipe).__name__} has no {kind.replace('_', ' ')}, so that it cannot read prompts: "
                    "load it with one"
                )

    def _told(self, x: Tensor, condition: Condition) -> Tensor:
        """The guidance scale of each row, for networks whose input it is."""
        scale = condition.tensors.get(SCALE, torch.full((len(x),), float(self.guidance_scale)))
        return scale.to(x.device, torch.float32)
