"""Networks in ONNX files, run by onnxruntime, in the shape that diffusers' pipelines expect of theirs.

Whatever a pipeline asks of its UNet, text encoders or autoencoder goes to a file, so that the pipeline and all that is
built on it work as ever, but without gradients: `differentiable` is False. Tensors live on the CPU; the provider moves
them to its device and back.

The digest of a file's bytes takes the place of weights in the fingerprint, which so differs from that of the same model
in torch: each has a calibration of its own.
"""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, NotApplicable
from .onnx_session import Session


class OnnxNetwork(torch.nn.Module):
    """What a pipeline's networks have in common. As a module it can be watched by hooks; its only state is a digest.

    Attributes:
        config: The config as diffusers or transformers wrote it.
    """

    differentiable = False
    device = torch.device("cpu")

    def __init__(self, config: Any, sessions: Iterable[Session]):
        super().__init__()
        self.config, self.sessions = config, list(sessions)
        digests = b"".join(session.digest() for session in self.sessions)
        # small whole numbers, which every dtype holds
        self.register_buffer("digest", torch.tensor(list(digests), dtype=torch.float32))

    @property
    def dtype(self) -> torch.dtype:
        return self.sessions[0].dtype if self.sessions else torch.float32


class OnnxUNet(OnnxNetwork):
    """A UNet2DConditionModel."""

    NEEDS = ("sample", "timestep", "encoder_hidden_states")
    MAY = ("timestep_cond", "text_embeds", "time_ids")

    def __init__(self, config: Any, session: Session):
        super().__init__(config, [session])
        self._ask = session
        # where the pipeline of Stable Diffusion XL looks up how wide its size embedding is
        width = config.get("projection_class_embeddings_input_dim")
        self.add_embedding = SimpleNamespace(linear_1=SimpleNamespace(in_features=width))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        timestep_cond: Tensor | None = None,
        cross_attention_kwargs: Any = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """Returns (output,), (B, C, H, W); timesteps are one or one per row."""
        times = torch.as_tensor(timestep).reshape(-1).expand(len(sample))
        rows = {"sample": sample, "encoder_hidden_states": encoder_hidden_states, "timestep_cond": timestep_cond}
        rows |= added_cond_kwargs or {}
        if not self._ask.takes_one_number("timestep"):
            return (self._ask(timestep=times, **rows)[0],)
        out = torch.empty(sample.shape, dtype=self.dtype)
        for time in times.unique():
            chosen = times == time
            part = {name: tensor[chosen] for name, tensor in rows.items() if tensor is not None}
            out[chosen] = self._ask(timestep=time, **part)[0]
        return (out,)


class OnnxTextEncoder(OnnxNetwork):
    """A CLIPTextModel, with or without projection."""

    NEEDS = ("input_ids",)
    MAY = ("attention_mask",)

    def __init__(self, config: Any, session: Session):
        super().__init__(config, [session])
        self._ask = session

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> "TextOutput":
        """Returns all outputs in the file's order.

        Raises:
            InputError: Hidden states are wanted, and the file gives none.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        found = TextOutput(self._ask(input_ids=input_ids, attention_mask=mask))
        named = zip(self._ask.outputs, found, strict=True)
        found.hidden_states = [tensor for name, tensor in named if name.startswith("hidden_states")]
        if output_hidden_states and not found.hidden_states:
            raise InputError(
                f"{self._ask.file} gives no hidden states, which this pipeline reads: export it with all of them"
            )
        return found


class TextOutput(tuple[Tensor, ...]):
    """What a text encoder answers, with its hidden states, the first layer's first."""

    hidden_states: list[Tensor]


class OnnxAutoencoder(OnnxNetwork):
    """An AutoencoderKL in two files, either of which may be missing."""

    def __init__(self, config: Any, encoder: Session | None, decoder: Session | None):
        super().__init__(config, [session for session in (decoder, encoder) if session is not None])
        self._encoder, self._decoder = encoder, decoder

    def encode(self, image: Tensor) -> SimpleNamespace:
        """Returns `latents`, the posterior mean; older exports give a sample of the posterior, which is hardly wider.

        Raises:
            NotApplicable: There is no encoder.
        """
        code = _half(self._encoder, "vae_encoder", image)
        return SimpleNamespace(latents=code[:, : self.config.latent_channels])  # log variances follow, if any

    def decode(self, latent: Tensor, return_dict: bool = False, generator: Any = None) -> tuple[Tensor]:
        """Returns (images,), in [-1, 1]. Raises NotApplicable if there is no decoder."""
        return (_half(self._decoder, "vae_decoder", latent),)


def _half(session: Session | None, name: str, value: Tensor) -> Tensor:
    if session is None:
        raise NotApplicable(f"this model's folder has no {name}/model.onnx: export it as well")
    return session(**{session.inputs[0]: value})[0]
