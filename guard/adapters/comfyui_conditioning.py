"""ComfyUI's CONDITIONING <-> Condition: texts become rows of tensors, all else of a conditioning a template.

A conditioning is a list of entries [text (B, L, D), options]. Areas, masks, ControlNets, time ranges, hooks and
whatever else stands in the options stay as they are; the texts of all entries are joined along L.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Condition
from ..errors import InputError

Conditioning = list[Any]
_POOLED = "pooled_output"
_LAYERS = "conditioning_llama3"  # of HiDream: what each layer of a second encoder says, (B, N, L', D)
# fit one text only
_OF_TEXT = ("attention_mask", "t5xxl_ids", "t5xxl_weights", _LAYERS)
_OF_TEXT += ("conditioning_byt5small", "conditioning_mt5xl", "attention_mask_mt5xl")


@dataclass(frozen=True)
class Template:
    """What a conditioning says besides its texts.

    Attributes:
        lengths: Text rows of each entry; none for the plain template, whose one entry takes what there is.
        options: The options of each entry, without the pooled text and the layers.
        layers: How many of the last text rows of each entry are layers of a second encoder, as N and L'; (0, 0) for
            none.
    """

    lengths: tuple[int, ...]
    options: tuple[dict[str, Any], ...]
    layers: tuple[tuple[int, int], ...]

    @property
    def plain(self) -> bool:
        """Whether the conditioning holds nothing but text."""
        return len(self.options) == 1 and not self.options[0]


PLAIN = Template((), ({},), ((0, 0),))


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
        layers = tuple(_join_layers(texts, options))
        rows = max(len(text) for text in texts)
        lengths = tuple(text.shape[1] for text in texts)
        if len({text.shape[2] for text in texts}) > 1:
            raise InputError("the conditioning combines texts of different models: encode all with one CLIP")
        number = self._remember(Template(lengths, options, layers))
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
        texts = text.split(template.lengths, dim=1) if template.lengths else [text]
        vectors = [None] * len(texts) if pooled is None else pooled.chunk(len(texts), dim=1)
        return [
            [part, {**options, **layers, **({} if vector is None else {_POOLED: vector})}]
            for (part, layers), vector, options in zip(
                map(_part_layers, texts, template.layers), vectors, template.options, strict=True
            )
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
        if template.plain and template.layers == PLAIN.layers:
            return 0
        if template.plain:  # many prompts have the same
            for number, known in enumerate(self._known):
                if known.plain and (known.lengths, known.layers) == (template.lengths, template.layers):
                    return number
        self._known.append(template)
        return len(self._known) - 1


def without_guidance(conditioning: Conditioning) -> Conditioning:
    """Returns a conditioning that leaves it to ComfyUI what a network is told as its guidance scale."""
    return [
        [text, {name: value for name, value in options.items() if name != "guidance"}] for text, options in conditioning
    ]


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


def _join_layers(texts: list[Tensor], options: tuple[dict[str, Any], ...]) -> Iterator[tuple[int, int]]:
    """Joins layers to the texts, in place, where they are as wide, so that they are rows of tensors like these."""
    for number, (text, own) in enumerate(zip(texts, options, strict=True)):
        layers = own.get(_LAYERS)
        if not isinstance(layers, Tensor) or layers.ndim != 4 or (len(layers), layers.shape[3]) != text.shape[::2]:
            yield 0, 0
            continue
        del own[_LAYERS]
        with torch.inference_mode(False):
            texts[number] = torch.cat([text, layers.detach().clone().to(text).flatten(1, 2)], dim=1)
        yield layers.shape[1], layers.shape[2]


def _part_layers(text: Tensor, layers: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns a text and its layers apart again."""
    count = layers[0] * layers[1]
    if not count:
        return text, {}
    return text[:, :-count], {_LAYERS: text[:, -count:].unflatten(1, layers)}


def _repeated(tensor: Tensor, rows: int) -> Tensor:
    if len(tensor) == rows:
        return tensor
    return tensor.repeat(-(-rows // len(tensor)), *[1] * (tensor.ndim - 1))[:rows]
