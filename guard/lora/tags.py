"""Prompts from the tags of a training folder, and how often each occurred."""

from collections.abc import Iterator, Mapping
from typing import Any

TOGETHER = 8  # tags of one prompt
_WORDS = 3  # what has more is a caption, and no tag


def most_frequent(concept: str, tags: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields prompts and where they come from: the most frequent tags as one prompt, then each, most frequent first.

    Args:
        concept: The folder's trigger words, which a prompt of one tag begins with; "" for none.
        tags: How often each tag occurred; what has no number is left out.
    """
    counts = {tag.strip(): count for tag, count in tags.items() if type(count) in (int, float) and tag.strip()}
    ordered = sorted(counts, key=lambda tag: (-counts[tag], tag))
    short = [tag for tag in ordered if len(tag.split()) <= _WORDS]
    if len(short) > 1:
        yield ", ".join(short[:TOGETHER]), "its most frequent tags together"
    for tag in ordered:
        times = f"{counts[tag]:g} time{'' if counts[tag] == 1 else 's'} in training"
        if len(tag.split()) > _WORDS or not concept or tag.lower() == concept.lower():
            yield tag, f"caption, {times}" if len(tag.split()) > _WORDS else f"tag, {times}"
        else:
            yield f"{concept}, {tag}", f"trigger and tag, {times}"
