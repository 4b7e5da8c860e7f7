"""ComfyUI's CONDITIONING <-> Condition: texts become rows of tensors, all else of a conditioning a template.

A conditioning is a list of entries [text (B, L, D), options]. Areas, masks, ControlNets, time ranges, hooks and
whatever else stands in the options stay as they are; the texts of all entries are joined along L.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Condition
from ..errors import InputError

Conditioning = list[Any]
_POOLED = "pooled_output"
_OF_TEXT = ("attention_mask", "t5xxl_ids", "t5xxl_weights")  # fit one text only


@dataclass(frozen=True)
class Template:
    """What a conditioning says besides its texts.

    Attributes:
        lengths: Text rows of each entry; none for the plain template, whose one entry takes what there is.
        options: The options of each entry, without the pooled text.
    """

    lengths: tuple[int, ...]
    options: tuple[dict[str, Any], ...]

    @property
    def plain(self) -> bool:
        """Whether the conditioning holds nothing but text."""
        return not self.lengths


PLAIN = Template((), ({},))


class Templates:
    """Turns conditionings into rows and back, remembering the templates that rows name by number."""

    def __init__(self) -> None:
        self._known = [PLAIN]

    def __getitem__(self, number: int) -> Template:
        return self._known[number]

    def read(self, conditioning: Conditioning) -> Condition:
        """Returns rows with text (B, L, D), tokens (B,), template (B,), and pooled (B, D') where the host gives one.

        Raises:
            InputError: No conditioning, or one without text.
        """
        texts, pooled, options = _parts(conditioning)
        rows = max(len(text) for text in texts)
        lengths = tuple(text.shape[1] for text in texts)
        if len({text.shape[2] for text in texts}) > 1:
            raise InputError("the conditioning combines texts of different models: encode all with one CLIP")
        plain = len(options) == 1 and not options[0]
        number = 0 if plain else self._remember(Template(lengths, options))
        tensors = {
            "text": torch.cat([_repeated(text, rows) for text in texts], dim=1),
            "tokens": torch.full((rows,), sum(lengths)),
            "template": torch.full((rows,), number),
        }
        if all(vector is not None for vector in pooled):
            tensors["pooled"] = torch.cat([_repeated(vector, rows) for vector in pooled if vector is not None], dim=1)
        return Condition(**tensors)

    def write(self, condition: Condition) -> Conditioning:
        """Returns the conditioning of rows that share one template and one number of tokens."""
        template = self._known[int(condition.tensors["template"][0])]
        text = condition.tensors["text"][:, : int(condition.tensors["tokens"][0])]
        pooled = condition.tensors.get("pooled")
        texts = [text] if template.plain else text.split(template.lengths, dim=1)
        vectors = [None] * len(texts) if pooled is None else pooled.chunk(len(texts), dim=1)
        return [
            [part, {**options, **({} if vector is None else {_POOLED: vector})}]
            for part, vector, options in zip(texts, vectors, template.options, strict=True)
        ]

    def without_words(self, like: Conditioning, empty: Conditioning) -> Conditioning:
        """Returns the empty prompt in each entry of a conditioning, with its areas, ControlNets and so on kept."""
        text, own = empty[0][0], empty[0][1]
        wordless = {name: value for name, value in own.items() if name != _POOLED}
        return [
            # a pooled text only where the prompt has one
            [text, {**_without_text(options), **(wordless if options.get(_POOLED) is None else own)}]
            for _, options in like
        ]

    def _remember(self, template: Template) -> int:
        self._known.append(template)
        return len(self._known) - 1


def _without_text(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in _OF_TEXT}


def _parts(
    conditioning: Conditioning,
) -> tuple[list[Tensor], list[Tensor | None], tuple[dict[str, Any], ...]]:
    try:
        entries = [(text, dict(options)) for text, options in conditioning]
    except (TypeError, ValueError) as error:
        raise InputError("that is no CONDITIONING: connect a text encoder's output") from error
    if not entries or not all(isinstance(text, Tensor) and text.ndim == 3 for text, _ in entries):
        raise InputError("the conditioning holds no text: connect the output of CLIP Text Encode")
    # usable with gradients later even if made in inference mode
    with torch.inference_mode(False):
        texts = [text.detach().clone() for text, _ in entries]
        pooled = [options.pop(_POOLED, None) for _, options in entries]
        pooled = [None if vector is None else vector.detach().clone() for vector in pooled]
    return texts, pooled, tuple(options for _, options in entries)


def _repeated(tensor: Tensor, rows: int) -> Tensor:
    if len(tensor) == rows:
        return tensor
    return tensor.repeat(-(-rows // len(tensor)), *[1] * (tensor.ndim - 1))[:rows]
