"""The pack in ComfyUI's languages: English is what the nodes say, and every other language has all of it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from .harness import Comfy
from .test_pack import schemas

ROOT = Path(__file__).parents[2]
LANGUAGES = sorted(path.name for path in (ROOT / "locales").iterdir())
FILES = ("main", "nodeDefs", "settings")


def read(language: str, file: str) -> dict[str, Any]:
    return json.loads((ROOT / "locales" / language / f"{file}.json").read_text("utf-8"))


def keys(value: Any, above: str = "") -> set[str]:
    """The paths of all texts."""
    if isinstance(value, str):
        assert value.strip() and not re.search(r"[{}|@]", value), above  # ComfyUI would read these as marks of its own
        return {above}
    return {path for key, inner in value.items() for path in keys(inner, f"{above}/{key}")}


def test_english_is_what_the_nodes_say(comfy: Comfy):
    found = read("en", "nodeDefs")
    expected = {
        name: {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {value.id: {"tooltip": value.tooltip} for value in schema.inputs},
            "outputs": {str(i): {"tooltip": value.tooltip} for i, value in enumerate(schema.outputs)},
        }
        for name, schema in schemas(comfy).items()
    }
    assert found == expected


def test_english_is_what_the_page_says():
    words = (ROOT / "web/js/words.js").read_text("utf-8").split("WORDS = {")[1].split("};")[0]
    assert read("en", "main")["cryptomnesia"] == {
        key.strip('"'): word for key, word in re.findall(r'\n  ("[^"]+"|\w+): "([^"]*)"', words)
    }
    settings = (ROOT / "web/js/settings.js").read_text("utf-8")
    place = re.search(r'PLACE = \["Cryptomnesia", ("[^"]+")\]', settings)
    other = re.findall(r'category: \["Cryptomnesia", ("[^"]+")', settings)
    assert place and {f'"{name}"' for name in read("en", "main")["settingsCategories"]} == {place[1], *other}
    assert all(name == text for name, text in read("en", "main")["settingsCategories"].items())
    for key, texts in read("en", "settings").items():
        assert f'id: "{key.replace("_", ".")}"' in settings and all(f'"{text}"' in settings for text in texts.values())
    assert len(read("en", "settings")) == settings.count('    id: "')


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_every_language_is_complete(language: str, file: str):
    english, other = read("en", file), read(language, file)
    assert keys(other) == keys(english)
    # what a tooltip names must be what is there: choices, commands, folders
    pattern = re.compile(r"`[^`]+`|--[a-z-]+|%\w+%|models/cryptomnesia|arXiv [\d.]+")

    def marks(value: Any) -> list[list[str]]:
        if isinstance(value, str):
            return [sorted(pattern.findall(value))]
        return [found for key in sorted(value) for found in marks(value[key])]

    assert marks(other) == marks(english)
