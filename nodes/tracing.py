"""Which texts feed a conditioning, along links and output slots; UNKNOWN where the workflow does not tell."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from ..guard.sidecar import UNKNOWN
from .graph import Graph, Link, as_link

REWRITE = "CryptomnesiaRewritePrompt"
GUARDED = ("CryptomnesiaGuardedKSampler", "CryptomnesiaGuardedGuider")  # may rewrite what they are given
# nodes whose one output holds all the conditionings that they are given
_JOINING = (
    "ConditioningCombine",
    "ConditioningConcat",
    "ConditioningAverage",
    "ConditioningSetPropertiesAndCombine",
    "ConditioningSetDefaultCombine",
)
_WORDLESS = "ConditioningZeroOut"
_WITHOUT_GUIDANCE = "FluxDisableGuidance"
_TEXTS = ("text", "prompt", "text_g", "text_l", "clip_l", "t5xxl")  # of encoders that ComfyUI does not know


@dataclass(frozen=True)
class Words:
    """What a conditioning was made of.

    Attributes:
        texts: The texts, each once, in order; None if they cannot be known.
        guidance: The guidance value that is handed to the model, UNKNOWN, or None where there is none.
        rewriters: Nodes of Rewrite Prompt on the way: the texts are what those were given.
    """

    texts: tuple[str, ...] | None
    guidance: Any = None
    rewriters: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The texts, one a line; UNKNOWN where they cannot be known."""
        return UNKNOWN if self.texts is None else "\n".join(self.texts)


UNTRACEABLE = Words(None)


def text_behind(node: Any, name: str) -> str | None:
    """Returns the text of a conditioning input of the running node, if the workflow tells it.

    Args:
        node: The node's class while it runs, with hidden prompt and unique_id.
        name: The input's name.
    """
    hidden = getattr(node, "hidden", None)
    if hidden is None or not hidden.prompt:
        return None
    graph = Graph(hidden.prompt)
    words = words_of(graph, graph.link(str(hidden.unique_id), name))
    return None if words.texts is None or words.rewriters else words.text


def words_of(graph: Graph, link: Link | None, seen: frozenset[Link] = frozenset()) -> Words:
    """Returns the words of what an output of type CONDITIONING gives, along links, switches and joining nodes."""
    link = graph.through(link)
    if link is None or link in seen:
        return UNTRACEABLE
    node_id, seen = link[0], seen | {link}
    kind, inputs = graph.kind(node_id), graph.inputs(node_id)
    if kind == REWRITE:
        return replace(_texts(graph, node_id, ["text"]), rewriters=(node_id,))
    feeding = _feeding(graph, link)
    if feeding is None:
        return UNTRACEABLE
    if feeding:
        parts = [words_of(graph, graph.link(node_id, name), seen) for name in feeding]
        words = joined(parts)
        if "positive" in feeding:
            words = as_guarded(graph, node_id, words)
        if kind == _WORDLESS:
            words = replace(words, texts=("",), rewriters=())
    else:
        words = _encoded(graph, link)
    if kind == _WITHOUT_GUIDANCE:
        return replace(words, guidance=None)
    return replace(words, guidance=graph.value(inputs["guidance"])) if "guidance" in inputs else words


def as_guarded(graph: Graph, node_id: str, words: Words) -> Words:
    """Returns the words of a sampler's positive conditioning; of a guarded one, as what it may have rewritten."""
    if graph.kind(node_id) not in GUARDED:
        return words
    policy = graph.value(graph.inputs(node_id).get("policy"))
    return replace(words, rewriters=(*words.rewriters, node_id)) if policy in ("rewrite", UNKNOWN) else words


def joined(parts: Iterable[Words]) -> Words:
    """Returns all texts, each once; UNKNOWN guidance where they differ in it."""
    parts = list(parts)
    guidance = {repr(part.guidance): part.guidance for part in parts}
    known = list(guidance.values())
    rewriters = tuple(dict.fromkeys(node_id for part in parts for node_id in part.rewriters))
    if not parts or any(part.texts is None for part in parts):
        texts = None
    else:
        texts = tuple(dict.fromkeys(text for part in parts for text in part.texts or () if text)) or ("",)
    return Words(texts, (known or [None])[0] if len(known) < 2 else UNKNOWN, rewriters)


def _feeding(graph: Graph, link: Link) -> list[str] | None:
    """Returns the names of the conditioning inputs that an output is made of; None where several may be."""
    node_id, name = link[0], graph.output(link)[1]
    types, inputs = graph.input_types(node_id), graph.inputs(node_id)
    linked = [key for key, value in inputs.items() if isinstance(value, list) and conditions(types, key)]
    if len(linked) <= 1 or graph.kind(node_id) in _JOINING:
        return linked
    # "positive" of an output is made of the inputs positive, positive_NEW and so on
    named = [key for key in linked if key == name or key.startswith(f"{name}_")]
    if named:
        return named
    same = {words_of(graph, graph.link(node_id, key), frozenset({link})) for key in linked}
    return linked[:1] if len(same) == 1 else None


def conditions(types: dict[str, str], key: str) -> bool:
    """Returns whether an input takes a conditioning: by its type, or by its name where the type is not known."""
    known = ("positive", "negative", "conditioning")
    return types.get(key) == "CONDITIONING" or (not types and key.split("_")[0] in known)


def _encoded(graph: Graph, link: Link) -> Words:
    """Returns the words of a node that encodes texts: all of an encoder's, else those named as its output."""
    types, inputs = graph.input_types(link[0]), graph.inputs(link[0])
    if not types:
        return _texts(graph, link[0], [key for key in _TEXTS if key in inputs])
    strings = [key for key in inputs if types.get(key) == "STRING"]
    if "CLIP" not in types.values():
        strings = [key for key in strings if key == graph.output(link)[1]]
    return _texts(graph, link[0], strings)


def _texts(graph: Graph, node_id: str, names: list[str]) -> Words:
    """Returns the words of the inputs of a node that have these names."""
    parts = []
    for name in names:
        value = graph.inputs(node_id).get(name)
        source = graph.through(as_link(value))
        if source is not None and graph.kind(source[0]) == REWRITE and source[1] == 0:
            parts.append(replace(_texts(graph, source[0], ["text"]), rewriters=(source[0],)))
            continue
        text = graph.value(value)
        unknown = not isinstance(text, str) or (text == UNKNOWN and value != UNKNOWN)
        parts.append(UNTRACEABLE if unknown else Words((text,)))
    return joined(parts)
