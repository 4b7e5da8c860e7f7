"""What the models of AUTOMATIC1111's web UI and its descendants share as denoisers: texts, sizes, identity.

Their texts are read in chunks of 75 tokens, so that rows of a batch may differ in length; each row is asked about at
its own. The web UI's modules are not imported: what is needed of them is handed over.
"""

import re
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..condition import TOKENS, Score, Span, occlusion_saliency
from ..denoiser import Condition, Denoiser, reference_settings, texts_of
from ..errors import InputError
from ..identity import fingerprint, inner_tensors, schedule_settings, token_settings
from .modules import glance, replaced_by
from .unread_weights import is_read

AsPrompts = Callable[[list[str], bool], Sequence[str]]
FACTOR = 8  # pixels per latent, a constant of these web UIs
_TABLE = re.compile(r"token_embedding\.(wrapped\.)?weight$")  # wrapped by those who add textual inversions
_KEPT = 8  # models whose digest is remembered
_digests: "OrderedDict[tuple[Any, ...], str]" = OrderedDict()


class WebUIDenoiser(Denoiser):
    """A model as a web UI holds it.

    Args:
        model: The web UI's `sd_model`.
        shape: (C, H, W) of the latents that it makes where no size is asked for.
        as_prompts: as_prompts(texts, negative) -> the same texts as what `get_learned_conditioning` takes, with the
            image's size for models that are told; by default the list itself.
        settings: What else makes the model answer as it does, e.g. "clip layer -2"; part of the fingerprint.

    Conditions: text (P, L, D), tokens (P,), and pooled (P, D') where the network is told a vector beside the text.
    """

    input_dtype = torch.float32  # type: ignore  # the web UI casts where its model wants it

    def __init__(
        self,
        model: Any,
        shape: Sequence[int],
        *,
        as_prompts: AsPrompts | None = None,
        settings: Iterable[str] = (),
    ):
        self.model, self._shape = model, tuple(shape)
        self._as_prompts = as_prompts or (lambda texts, negative: texts)
        self.settings = sorted(settings)

    # --- what a subclass knows ---

    @property
    @abstractmethod
    def network(self) -> torch.nn.Module:
        """The denoising network."""

    @property
    @abstractmethod
    def text_encoder(self) -> torch.nn.Module:
        """The module that holds all text encoders."""

    @abstractmethod
    def settle(self) -> None:
        """Brings the weights into the state that they are asked in, since LoRAs may be merged as late as that."""

    @abstractmethod
    def _answer(self, x: Tensor, time: Tensor, conditioning: Any) -> Tensor:
        """The network's own output (R, C, H, W) about rows of equally long texts."""

    # --- sizes ---

    @property
    def channels(self) -> int:
        return self._shape[0]

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """Returns (C, H, W) of the latent of an image in pixels; None means the size that the web UI makes now."""
        if height is None and width is None:
            return self._shape[0], self._shape[1], self._shape[2]
        sides = []
        for name, pixels, own in (("height", height, self._shape[1]), ("width", width, self._shape[2])):
            pixels = own * FACTOR if pixels is None else pixels
            if pixels <= 0 or pixels % FACTOR:
                raise InputError(f"{name} {pixels} is not a positive multiple of {FACTOR}, as this model needs")
            sides.append(pixels // FACTOR)
        return self._shape[0], sides[0], sides[1]

    def pixels(self, shape: Sequence[int]) -> tuple[int, int]:
        """Returns height and width of the images whose latents are (C, H, W)."""
        return shape[1] * FACTOR, shape[2] * FACTOR

    # --- text ---

    def read(self, conditioning: Any) -> Condition:
        """Returns what `get_learned_conditioning` gave as rows, which keep none of its memory.

        Args:
            conditioning: Texts (L, D) or (P, L, D), or a mapping with these as "crossattn" and a "vector" (D',) or
                (P, D').

        Raises:
            InputError: It is neither, or not finite.
        """
        given = conditioning if isinstance(conditioning, Mapping) else {"crossattn": conditioning}
        text, vector = given.get("crossattn"), given.get("vector")
        if not isinstance(text, Tensor) or text.ndim not in (2, 3):
            raise InputError("the web UI's condition holds no text that is known here: it cannot be checked")
        with torch.inference_mode(False):
            text = text.detach().clone().reshape(-1, *text.shape[-2:])
            tensors = {"text": text, TOKENS: torch.full((len(text),), text.shape[1])}
            if isinstance(vector, Tensor):
                tensors["pooled"] = vector.detach().clone().reshape(len(text), -1)
        if not text.isfinite().all():
            raise InputError("the prompt was read as NaN or infinity: look for a weight in it that is no number")
        return Condition(**tensors)

    def write(self, condition: Condition) -> Any:
        """Returns rows of equally long texts as the web UI hands them to its network."""
        text = condition.tensors["text"][:, : int(condition.tensors[TOKENS][0])]
        vector = condition.tensors.get("pooled")
        return text if vector is None else {"crossattn": text, "vector": vector}

    def encode(self, prompt: str | Sequence[str]) -> Condition:
        """Returns the condition of one or more prompts, one row each, with weights in brackets read as the web UI does.

        AND and [from:to:when] are not read here: give their parts.

        Raises:
            InputError: No prompt, or something that is none: see `texts_of`.
        """
        texts = texts_of(prompt)
        rows = self._encoded(texts, negative=False)
        if len(texts) > 1 and rows.tensors["text"].shape[1] > self.empty.tensors["text"].shape[1]:
            # the longest made the others longer, and other conditions, than they are alone
            return Condition.cat([self._encoded([text], negative=False) for text in texts])
        return rows

    @cached_property
    def empty(self) -> Condition:  # type: ignore[override]
        return self._encoded([""], negative=True)

    def _encoded(self, texts: list[str], *, negative: bool) -> Condition:
        with torch.no_grad():
            return self.read(self.model.get_learned_conditioning(self._as_prompts(texts, negative)))

    def truncated(self, prompt: str) -> bool:
        """Returns False: long prompts are read in several parts."""
        return False

    def significance(self, prompt: str, spans: Sequence[Span], score: Score) -> list[float]:
        """Returns how much the score falls without each character range of the prompt, >= 0; higher = more salient."""
        return occlusion_saliency(self.encode, prompt, spans, score)

    # --- the network ---

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        groups: dict[int, list[int]] = {}
        for row, tokens in enumerate(condition.tensors[TOKENS].tolist()):
            groups.setdefault(tokens, []).append(row)
        parts = [self._answer(x[rows], time[rows], self.write(condition[rows])) for rows in groups.values()]
        order = torch.tensor([row for rows in groups.values() for row in rows], device=x.device)
        return torch.cat([part.float() for part in parts])[order.argsort()]

    # --- identity ---

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """The digest of the network and the text encoders as they answer now, with LoRAs, and of the settings."""
        self.settle()
        modules = [self.network, self.text_encoder]
        strange = [words for module in modules if (words := replaced_by(module)) is not None]
        settings = [*self.settings, *self._tokens(), *(f"forward by {words}" for words in strange)]
        settings += schedule_settings(self.levels.alphas_cumprod) + reference_settings(self)
        about = (self.family, self.dtype, self.prediction_type, settings)
        key = (str(about), *(part for module in modules for part in glance(module)))
        if key not in _digests:
            found = (
                part
                for module in modules
                for name, weight in module.state_dict().items()
                for part in inner_tensors(weight)
                if is_read(name, part)
            )
            _digests[key] = fingerprint(found, *about)
            while len(_digests) > _KEPT:
                _digests.popitem(last=False)
        _digests.move_to_end(key)
        return _digests[key]

    def _tokenizers(self) -> Iterator[tuple[Any, torch.nn.Module]]:
        """Each tokenizer that can be found, with the module of its text encoder."""
        for module in self.text_encoder.modules():
            if "tokenizer" in vars(module):
                yield vars(module)["tokenizer"], module

    def _tokens(self) -> list[str]:
        """How prompts become tokens, where it is not as text encoders are used to."""
        found = []
        for tokenizer, module in self._tokenizers():
            tables = (weight for name, weight in module.state_dict().items() if _TABLE.search(name))
            table = next(tables, None)
            if table is not None and hasattr(tokenizer, "bos_token_id"):
                found += token_settings(lambda text, tokens=tokenizer: tokens(text).input_ids, len(table))
        return sorted(set(found))
