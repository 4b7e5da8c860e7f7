"""Takes the tokens that carry a memory out of attention, and keeps the words: the prompt's text is not changed.

References:
    Zhao et al. 2026, arXiv 2603.00133 (GUARD): attenuates cross-attention at positions found for each prompt;
    Ren et al., ECCV 2024, arXiv 2403.11052: much of a memory is in the tokens behind the words, which sum them up.
Ours takes out what stands behind and between the words first, with the vector that sums them up if there is one; then
as few words as will do, each wholly: half of the attention to a token lets its memory through. No hook is needed, and
nothing has to be put back: a token is taken out by a row that says nothing in its place, to which its attention goes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..calibration import Calibration
from ..denoiser import Condition, Denoiser
from ..errors import NotApplicable
from ..protocols import rows_of_words
from ..signals.draws import derived_seed
from .objective import Measure, Objective, numbers
from .result import Mended, Mitigation, WordChange, similarity
from .rewrite import BEAM, POSITIONS, ROUNDS
from .words import Words


def attenuate(
    denoiser: Denoiser,
    calibration: Calibration,
    prompt: str,
    original: Condition,
    *,
    seed: int = 0,
    shape: tuple[int, int, int] | None = None,
) -> Mended:
    """Looks for the fewest words without whose tokens a prompt neither is flagged nor pulls to the original's image.

    Args:
        denoiser: The model, one that tells which rows of a text belong to which word.
        calibration: The model's calibration.
        prompt: The memorized prompt.
        original: Its condition, one row.
        seed: The seed of the private noise.
        shape: The latent's shape, (C, H, W).

    Returns:
        What to sample with; `mitigation.held` is False, and nothing is changed, if no choice of words passed, or only
        one of all words.

    Raises:
        NotApplicable: The model does not tell where words are, or the condition is not the prompt's alone.
        NonFiniteError, OutOfMemory: As in `Guidance`.
    """
    return _Search(denoiser, calibration, prompt, original, seed, shape).run()


class _Search:
    """One prompt's search: `screen` has one draw and sees every choice of words, `test` has fresh draws."""

    def __init__(
        self,
        denoiser: Denoiser,
        calibration: Calibration,
        prompt: str,
        original: Condition,
        seed: int,
        shape: tuple[int, int, int] | None,
    ):
        self.host, self.alpha, self.prompt = rows_of_words(denoiser), calibration.alpha, prompt
        self.original, self.words = original, Words.of(prompt)
        # the text encoder's own, also where zeros stand for the empty prompt
        blank = self.host.encode("").tensors
        self.empty, self.pooled = blank["text"].to(original.tensors["text"]), blank.get("pooled")
        if self.empty.shape != original.tensors["text"].shape:
            raise NotApplicable(
                f"the condition has {original.tensors['text'].shape[1]} rows of text, the model's own "
                f"{self.empty.shape[1]}: give the prompt alone, without max_sequence_length"
            )
        self.rows = self.host.token_rows(prompt, self.words.spans)
        seeds = [derived_seed(seed, purpose, prompt) for purpose in ("screen", "test")]
        self.screen = Objective(denoiser, calibration, original, seed=seeds[0], draws=1, shape=shape)
        self.test = Objective(denoiser, calibration, original, seed=seeds[1], shape=shape)

    def run(self) -> Mended:
        drafts: list[tuple[int, ...]] = [()]
        for _ in range(ROUNDS + 1):
            drafts = [draft for draft in drafts if len(draft) < len(self.words)]
            if not drafts:
                break
            condition = self._without(drafts)
            screened = self.screen(condition)
            passed = screened.holds(self.alpha).nonzero().flatten().tolist()
            if passed:
                tested = self.test(condition[passed])
                held = tested.holds(self.alpha).nonzero().flatten().tolist()
                if held:
                    row = min(held, key=lambda k: tested.score[k].item())
                    chosen, about = condition[[passed[row]]], tested[row]
                    alike = similarity(chosen, self.original).item()
                    return Mended(self._report(drafts[passed[row]], None, about, alike), chosen)
            closest = (screened.score - self.screen.before.score + 4 * screened.guidance_similarity).argsort().tolist()
            drafts = self._longer([drafts[i] for i in closest[:BEAM]])
        reason = "no choice of words whose tokens are attenuated passed the test"
        return Mended(self._report((), reason, self.test.before, 1.0))

    def _longer(self, drafts: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Each draft with one more of the most significant words, every choice once."""
        values = self.significance
        ranked = sorted(range(len(values)), key=lambda i: -values[i])[:POSITIONS]
        return list(dict.fromkeys(tuple(sorted({*draft, i})) for draft in drafts for i in ranked if i not in draft))

    @property
    def significance(self) -> list[float]:
        """How much the score depends on each word."""
        if not hasattr(self, "_significance"):
            self._significance = self.host.significance(
                self.prompt, self.words.spans, lambda condition, grad: self.screen(condition, grad=grad).score
            )
        return self._significance

    def _without(self, drafts: Sequence[tuple[int, ...]]) -> Condition:
        text = self.original.tensors["text"]
        texts = []
        for draft in drafts:
            stay = {row for i, rows in enumerate(self.rows) if i not in draft for row in rows}
            texts.append(attended(text[0], self.empty[0], stay))
        others = {name: tensor for name, tensor in self.original.tensors.items() if name != "text"}
        if self.pooled is not None and "pooled" in others:  # it sums the words up, as the tokens behind them do
            others["pooled"] = self.pooled.to(others["pooled"])
        repeated = {name: tensor[[0] * len(drafts)] for name, tensor in others.items()}
        return Condition(text=torch.stack(texts), **repeated)

    def _report(self, draft: tuple[int, ...], reason: str | None, after: Measure, alike: float) -> Mitigation:
        words = self.words.words
        return Mitigation(
            method="attenuate",
            held=reason is None,
            reason=reason,
            original=self.prompt,
            rewritten=self.prompt,
            words=[WordChange("attenuate", words[i], words[i], self.significance[i]) for i in draft],
            similarity=alike,
            **numbers(self.test, after, self.screen),
        )


def attended(text: Tensor, empty: Tensor, stay: set[int]) -> Tensor:
    """Returns a text (L, D) without what most of its rows say.

    Rows that the empty prompt has, too, say nothing: the first token, which attention rests on where no word matters,
    and vectors of zeros. They stay, and take the places of what is taken out, in turn.

    Args:
        text: The text's rows.
        empty: The empty prompt's, (L, D).
        stay: The rows of words that stay.
    """
    silent = torch.isclose(text.float(), empty.float(), rtol=1e-3, atol=1e-4).all(-1).nonzero().flatten().tolist()
    out = [row for row in range(len(text)) if row not in {*silent, *stay}]
    if not silent:
        return text
    found = text.clone()
    found[out] = text[[silent[i % len(silent)] for i in range(len(out))]]
    return found
