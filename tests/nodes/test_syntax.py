"""Rewrite Prompt and ComfyUI's prompt syntax: embeddings, weights, brackets, escapes and what people make of them."""

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from cryptomnesia.adapters.comfyui import ComfyDenoiser
from cryptomnesia.condition import TEXTS, occlusion_saliency
from cryptomnesia.denoiser import Condition
from cryptomnesia.errors import InputError
from cryptomnesia.mitigation.words import Words

from .graphs import MEMORIZED, complaint, demo, keep, links, ours, ran
from .harness import Comfy

WORDS = st.sampled_from(
    ["a", "cat", "old-clock", "grimsby's", "BREAK", "AND", "猫", "🐈", "ﬀ", "1.5", "e\u0301", "\u202e"]
)
ODD = st.sampled_from(
    [
        "embedding:",
        "embedding: foo",
        "embedding:foo,",
        "(",
        ")",
        "((",
        "))",
        "\\",
        "\\(",
        ":",
        "|",
        "[",
        "}",
        "<lora:x:1>",
        "// x",
        "/* x */",
        "\0",
        ":)",
        "(:1.2)",
        "()",
    ]
)
WEIGHTS = st.sampled_from(["1.2", "0.5", ".7", "2", "-1", "1e3", "x", "", "1.2.3"])


def wrapped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(" ".join),
        st.builds("({}:{})".format, inner, WEIGHTS),
        st.builds("({})".format, inner),
        st.builds("[{}|{}]".format, inner, inner),
        st.builds("{{{}|{}}}".format, inner, inner),
        st.builds("\\({}\\)".format, inner),
        st.builds("{}, {}".format, inner, inner),
        st.builds("{} embedding:{}".format, inner, st.sampled_from(["real", "foo", "a/b", "real.safetensors"])),
    )


BALANCED = st.recursive(WORDS, wrapped, max_leaves=8)
ANYTHING = st.recursive(st.one_of(WORDS, ODD), wrapped, max_leaves=8)


@pytest.fixture(scope="module")
def clip(comfy: Comfy, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The built-in model's, and one embedding of two tokens in its folder."""
    from cryptomnesia.demo.comfyui import load_demo_comfyui

    place = tmp_path_factory.mktemp("embeddings")
    save_file({"clip_l": torch.ones(2, 128)}, place / "real.safetensors")
    with torch.inference_mode():
        return load_demo_comfyui("final", [str(place)])[1]


def weights(clip: Any, text: str) -> set[float]:
    return {round(weight, 6) for part in clip.tokenize(text)["l"] for _, weight in part}


def edits(words: Words) -> list[str]:
    found = []
    for i in range(len(words)):
        found += [words.swap(i, "horse"), words.insert(i, "horse")]
        found += [words.drop(i)] if len(words) > 1 else []
        found += [words.move(i, i + 1)] if i + 1 < len(words) else []
    return [str(edit) for edit in found]


@pytest.mark.usefixtures("comfy")
@settings(deadline=None, derandomize=True, max_examples=60)
@given(BALANCED)
@example("memorized embedding:foo")
@example("(embedding:real:1.2) (a (cat:1.3):0.5)")
@example("a (red:1.2) cat")
@example("((red:1.2))(cat)")
def test_edits_leave_the_syntax_as_it_is(clip: Any, text: str):
    before = weights(clip, text) | {1.0}
    for edit in edits(Words.of(text)):
        assert weights(clip, edit) <= before, edit


@pytest.mark.usefixtures("comfy")
@settings(deadline=None, derandomize=True, max_examples=60)
@given(ANYTHING)
@example("memorized embedding:")
@example("(embedding:) a")
@example("embedding: embedding:real")
@example("a embedding:\n")
@example("embedding: (foo)")
def test_whatever_is_written_can_be_read_and_edited(clip: Any, text: str):
    denoiser = reader(clip)
    words = Words.of(text)
    assert "".join(part for pair in zip(words.gaps, (*words.words, ""), strict=True) for part in pair) == text
    for prompt in [text, *edits(words)[:8]]:
        try:
            assert denoiser.conditioning(prompt)[0][0].shape[2] == 128
        except InputError as error:
            pytest.fail(str(error))


@cache
def reader(clip: Any) -> ComfyDenoiser:
    denoiser = ComfyDenoiser.__new__(ComfyDenoiser)  # texts need no network
    denoiser.clip = clip
    return denoiser


def test_what_is_a_word():
    words = Words.of("(old embedding:clock:1.2) embedding: foo, (1.5) at 3:15")
    assert words.words == ("old", "embedding:clock", "embedding: foo", "1", "5", "at", "3", "15")
    assert str(Words.of("a (red:1.2) cat").drop(1)) == "a cat"
    assert str(Words.of("((red:1.2)) cat").drop(0)) == "cat"
    assert str(Words.of("a (red cat:1.2)").drop(0)) == "(red cat:1.2)"
    assert str(Words.of("a, b, c").drop(1)) == "a, c"


def rewriting(comfy: Comfy, text: str, **changes: Any) -> dict[str, Any]:
    prompt = demo()
    inputs = {key: link for key, link in links(prompt).items() if key != "positive"}
    return prompt | {"mend": ours(comfy, "RewritePrompt", **inputs | changes, text=text), "kept": keep("mend")}


PROMPTS = [
    f"{MEMORIZED} embedding:foo",
    f"{MEMORIZED} embedding:",
    f"(({MEMORIZED}:1.1)), BREAK [a|b]",
    f"{MEMORIZED} \\(old\\) ((",
    f"{{{MEMORIZED}}} )(",
    "embedding:",
    "()",
    "",
]


@pytest.mark.parametrize("text", PROMPTS)
def test_prompts_are_rewritten_whatever_their_syntax(comfy: Comfy, text: str):
    found, encoded, _, report = ran(comfy, rewriting(comfy, text, when="always")).outputs["mend"]
    assert report["verdict"] in ("clear", "memorized") and encoded[0][0].isfinite().all()
    assert found == report["prompt"] or not report["mitigation"]["held"]


@pytest.mark.parametrize(
    ("text", "words"), [("a (cat:nan)", "weight"), ("a (cat:inf)", "weight"), ("(" * 5000 + "a" + ")" * 5000, "nested")]
)
def test_what_no_encoder_can_read_is_told_in_a_line(comfy: Comfy, text: str, words: str):
    assert words in complaint(comfy, rewriting(comfy, text))


def test_a_long_prompt_costs_a_bounded_number_of_texts():
    """The word that counts is found all the same."""
    prompt = " ".join(f"w{i}" for i in range(1000))
    asked: list[int] = []

    def encode(texts: list[str]) -> Condition:
        asked.append(len(texts))
        return Condition(text=torch.tensor([[[float("w437" in text.split())]] for text in texts]))

    found = occlusion_saliency(
        encode, prompt, Words.of(prompt).spans, lambda condition, grad: condition.tensors["text"].flatten()
    )
    assert max(asked) <= TEXTS + 1 and len(asked) == 2
    assert [i for i, value in enumerate(found) if value] == [437]
