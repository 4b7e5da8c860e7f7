"""The stages of an image's sampling, as the workflow says: each with its settings, its seed and its texts."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..guard.sidecar import UNKNOWN
from .graph import ANY, Graph
from .tracing import Words, as_guarded, conditions, words_of

_SETTINGS = (
    "steps",
    "cfg",
    "cfg_conds",
    "cfg_cond2_negative",
    "style",
    "neg_scale",
    "sampler_name",
    "scheduler",
    "denoise",
    "start_at_step",
    "end_at_step",
    "step",
    "add_noise",
    "shift",
    "max_shift",
    "base_shift",
)
_SEEDS = ("seed", "noise_seed")
_PICTURES = ("LATENT", "IMAGE", *ANY, None)
_PARTS = ("SAMPLER", "SIGMAS", "GUIDER", "MODEL")  # what settings of a sampler may come from


@dataclass(frozen=True)
class Stage:
    """One sampler's part.

    Attributes:
        settings: The sampler's settings by name; UNKNOWN where only the run knows.
        seed: The seed of the noise that it adds; UNKNOWN where only the run knows, None where it adds none.
        positive, negative: The words of its conditionings.
    """

    settings: dict[str, Any]
    seed: int | str | None
    positive: tuple[Words, ...]
    negative: tuple[Words, ...]


def stages_of(graph: Graph, node_id: str, name: str = "images") -> list[Stage]:
    """Returns the stages of the images that a node gets, from the first, which starts from noise, to the last."""
    first = graph.link(node_id, name)
    waiting, seen, samplers = deque([first[0]] if first else []), set(), []
    while waiting:
        number = waiting.popleft()
        if number in seen or number not in graph.prompt:
            continue
        seen.add(number)
        if _samples(graph, number):
            samplers.append(number)
        for key in graph.inputs(number):
            link = graph.link(number, key)
            if link is not None and graph.output(link)[0] in _PICTURES:
                waiting.append(link[0])
    return [_stage(graph, number) for number in reversed(samplers)]


def _samples(graph: Graph, node_id: str) -> bool:
    inputs = graph.inputs(node_id)
    seeded = any(name in inputs for name in (*_SEEDS, "noise"))
    return seeded and ("sampler" in graph.kind(node_id).lower() or any(key in inputs for key in ("positive", "guider")))


def _stage(graph: Graph, node_id: str) -> Stage:
    settings: dict[str, Any] = {}
    for number in _parts(graph, node_id):
        for name, value in graph.inputs(number).items():
            if name in _SETTINGS and name not in settings:
                known = graph.value(value)
                settings[name] = known if isinstance(known, str | int | float) else UNKNOWN
    guider = graph.link(node_id, "guider")
    positive, negative = _words(graph, node_id if guider is None else guider[0])
    guidance = next((words.guidance for words in positive if words.guidance is not None), None)
    if guidance is not None:
        settings["guidance"] = guidance
    return Stage(settings, _seed(graph, node_id), positive, negative)


def _parts(graph: Graph, node_id: str) -> Iterator[str]:
    """Yields a sampler and what its settings come from, nearest first."""
    waiting, seen = deque([node_id]), {node_id}
    while waiting:
        number = waiting.popleft()
        yield number
        for key in graph.inputs(number):
            link = graph.link(number, key)
            if link is not None and link[0] not in seen and graph.output(link)[0] in _PARTS:
                seen.add(link[0])
                waiting.append(link[0])


def _seed(graph: Graph, node_id: str) -> int | str | None:
    inputs = graph.inputs(node_id)
    if graph.value(inputs.get("add_noise")) in ("disable", False):
        return None
    if "noise" in inputs:
        link = graph.link(node_id, "noise")
        if link is None or graph.kind(link[0]).startswith("Cryptomnesia"):  # tries several seeds and names the first
            return UNKNOWN
        if not graph.inputs(link[0]):  # as of DisableNoise
            return None
        inputs = graph.inputs(link[0])
    seed = next((graph.value(inputs[name]) for name in _SEEDS if name in inputs), UNKNOWN)
    return seed if isinstance(seed, int) else UNKNOWN


def _words(graph: Graph, node_id: str) -> tuple[tuple[Words, ...], tuple[Words, ...]]:
    """Returns the words of the conditionings that a sampler is drawn to, and of those that it is driven from."""
    types, inputs = graph.input_types(node_id), graph.inputs(node_id)
    sides: tuple[list[Words], list[Words]] = [], []
    for key in inputs:
        if not conditions(types, key) or key.startswith("empty"):
            continue
        link = graph.link(node_id, key)
        words = Words(None) if link is None else words_of(graph, link)
        sides[key.startswith("negative")].append(words if key != "positive" else as_guarded(graph, node_id, words))
    return tuple(sides[0]), tuple(sides[1])
