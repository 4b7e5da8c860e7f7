"""Which prompts a LoRA may have been trained on, as its own metadata tell.

kohya's scripts write how often each tag or caption occurred, the folders' names with their trigger words, and the name
of the output; the Model Spec standard a trigger phrase. Whatever is there is text from outside, and bounded.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..errors import InputError
from ..printable import printable
from .tags import most_frequent

MOST = 100  # prompts that are taken from metadata; the rest are the rarer ones
_LONGEST = 1000  # characters of a prompt
_LARGEST = 32 << 20  # characters of a value
_PHRASES = ("modelspec.trigger_phrase", "modelspec.trigger_words", "trigger_phrase", "trigger_words", "instance_prompt")
_NAMES = ("modelspec.title", "ss_output_name")


class Candidate(NamedTuple):
    """A prompt that a LoRA may have been trained on.

    Attributes:
        text: The prompt.
        source: Where it comes from, in words.
    """

    text: str
    source: str


def from_metadata(metadata: Mapping[str, str], most: int = MOST) -> list[Candidate]:
    """Returns the prompts that a LoRA's metadata tell of, each once, the most telling first.

    Trigger words; then per folder its most frequent tags together, and each tag or caption alone, the most frequent
    first; the file's own name last, and only where there is anything beside it.

    Args:
        metadata: The header of the file.
        most: At most that many.
    """
    found: dict[str, str] = {}
    for text, source in _all(metadata):
        text = " ".join(text.split())
        if text and text.isprintable() and any(char.isalnum() for char in text) and len(text) <= _LONGEST:
            found.setdefault(text, source)
        if len(found) >= most:
            break
    names = [" ".join(metadata.get(key, "").replace("_", " ").split()) for key in _NAMES]
    for name in names:
        if found and len(found) < most and name and name.isprintable() and len(name) <= _LONGEST:
            found.setdefault(name, "the file's title")
    return [Candidate(text, source) for text, source in found.items()]


def require(candidates: list[Candidate], name: str) -> list[Candidate]:
    """Returns the prompts. Raises InputError, saying what to do, where there are none."""
    if not candidates:
        raise InputError(
            f"{printable(name, 80)} tells no prompts in its metadata: give --prompts, a file with those that it was "
            "trained on, or the folder with the captions"
        )
    return candidates


def _all(metadata: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key in _PHRASES:
        for phrase in metadata.get(key, "").split(","):
            yield phrase, "trigger phrase"
    folders = _object(metadata, "ss_tag_frequency")
    for name in [*folders, *_object(metadata, "ss_dataset_dirs")]:
        concept = _concept(name)
        if concept:
            yield concept, "the training folder's name"
    for tokens in _class_tokens(metadata):
        yield tokens, "the class tokens"
    for name, tags in folders.items():
        if isinstance(tags, dict):
            yield from most_frequent(_concept(name), tags)


def _concept(folder: str) -> str:
    """The trigger words of a folder named as kohya's scripts want it: "10_sks dog" is "sks dog", ten times an epoch."""
    repeats, _, words = folder.partition("_")
    return words.strip() if repeats.isdigit() else ""


def _object(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    """What a value holds as JSON, where it is an object; nothing where it is not."""
    text = metadata.get(key, "")
    if len(text) > _LARGEST:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _class_tokens(metadata: Mapping[str, str]) -> Iterator[str]:
    text = metadata.get("ss_datasets", "")
    try:
        datasets = json.loads(text) if len(text) <= _LARGEST else []
    except (ValueError, RecursionError):
        return
    for dataset in datasets if isinstance(datasets, list) else []:
        subsets = dataset.get("subsets") if isinstance(dataset, dict) else None
        for subset in subsets if isinstance(subsets, list) else []:
            tokens = subset.get("class_tokens") if isinstance(subset, dict) else None
            if isinstance(tokens, str):
                yield tokens
