"""Rewrites a prompt by as few words as make the model forget the image, and by none of its meaning more than needed.

Saliency of a word: gradient norm of the score at its tokens (Wen et al., ICLR 2024, arXiv 2407.21720), or how much the
score falls without it, where a host gives no gradients. Candidates
drop, swap, insert before or move the most significant words; all of a round are scored in batches on one noise draw,
and the best are tested on fresh ones.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import torch
from torch import Tensor

from ..calibration import Calibration
from ..denoiser import Condition, Denoiser
from ..errors import InputError
from ..protocols import text_of
from ..signals.draws import derived_seed
from .objective import Measure, Objective, numbers, ordinary
from .result import Mended, Mitigation, WordChange, similarity
from .words import Words, word_list

ROUNDS = 4  # words changed at most
BEAM = 4  # drafts that go on into the next round
POSITIONS = 6  # most significant words that are edited in a round, at most
RELEVANT = 0.25  # of the largest significance; below that a word is no trigger, and its place is left alone
SWAPS = 8  # words tried in each place
FINALISTS = 8  # tested on fresh noise at a time
ENOUGH = 4  # that hold, to see which of them stands out among its like
Rewriter = Callable[[str], list[str]]


def rewrite(
    denoiser: Denoiser,
    calibration: Calibration,
    prompt: str,
    *,
    rewriter: Rewriter | None = None,
    words: Path | None = None,
    seed: int = 0,
    shape: tuple[int, int, int] | None = None,
) -> Mended:
    """Looks for the least edit of a prompt that is neither flagged nor pulls to the original's image.

    Of those that hold, those whose score is high among them are left out, since they call up another training image now
    and then; of the others the least edit, and of equally few words the one whose text condition is most like the
    original's.

    Args:
        denoiser: The model, a TextDenoiser.
        calibration: The model's calibration.
        prompt: The memorized prompt.
        rewriter: Gives whole prompts to try first, e.g. by a language model; if none of them will do, words are edited.
        words: A word list to use in place of the package's.
        seed: The seed of the private noise and of the choice of words.
        shape: The latent's shape, (C, H, W).

    Returns:
        What to sample with; `mitigation.held` is False, and nothing is changed, if no edit passed.

    Raises:
        InputError: The model cannot read texts, the word list cannot be used, or the rewriter raises or gives
            something else than texts.
        NotApplicable, NonFiniteError, OutOfMemory: As in `Guidance`.
    """
    return _Search(denoiser, calibration, prompt, words, seed, shape).run(rewriter)


@dataclass(frozen=True)
class _Held:
    """A rewriting that holds on fresh noise, with its measure there, of one row."""

    text: str
    condition: Condition
    measure: Measure
    edits: int
    alike: float


class _Search:
    """One prompt's search: `screen` has one draw and sees every candidate, `test` has fresh draws for the finalists."""

    def __init__(
        self,
        denoiser: Denoiser,
        calibration: Calibration,
        prompt: str,
        words: Path | None,
        seed: int,
        shape: tuple[int, int, int] | None,
    ):
        self.text, self.alpha, self.prompt = text_of(denoiser), calibration.alpha, prompt
        self.original = self.text.encode([prompt])
        self.start = Words.of(prompt)
        self.bank = word_list(words)
        self.random = random.Random(derived_seed(seed, "words", prompt))
        seeds = [derived_seed(seed, purpose, prompt) for purpose in ("screen", "test")]
        self.screen = Objective(denoiser, calibration, self.original, seed=seeds[0], draws=1, shape=shape)
        self.test = Objective(denoiser, calibration, self.original, seed=seeds[1], shape=shape)
        self.significance = self._significance()
        self.seen = {prompt}
        self.held: list[_Held] = []

    def run(self, rewriter: Rewriter | None) -> Mended:
        if rewriter is not None:
            proposals = _proposals(rewriter, self.prompt)
            self._try(proposals, [len(changes(self.start, text, {})) for text in proposals], 1)
            if self.held:
                return self._chosen()
        if not self.start.words:
            return self._failed("the prompt has no word to change")
        drafts = [self.start]
        for edits in range(1, ROUNDS + 1):
            candidates = [edited for draft in drafts for edited in self._edits(draft)]
            order = self._try([str(c) for c in candidates], [edits] * len(candidates), ENOUGH)
            drafts = [candidates[i] for i in order[:BEAM]]
            if len(self.held) >= ENOUGH or not drafts:
                break
        return self._chosen() if self.held else self._failed(f"no edit of up to {ROUNDS} words passed the test")

    def _significance(self) -> dict[str, float]:
        def score(condition: Condition, grad: bool) -> Tensor:
            return self.screen(condition, grad=grad).score

        values = self.text.significance(self.prompt, self.start.spans, score)
        strongest: dict[str, float] = {}
        for word, value in zip(self.start.words, values, strict=True):
            strongest[word] = max(value, strongest.get(word, 0.0))
        return strongest

    def _edits(self, draft: Words) -> Iterator[Words]:
        """Every kind of edit at the draft's most significant words that are still the original's."""
        least = RELEVANT * max(self.significance.values())
        values = [self.significance.get(word, -1.0) for word in draft.words]
        ranked = sorted((i for i, value in enumerate(values) if value >= least), key=lambda i: -values[i])
        for i in ranked[:POSITIONS]:
            if len(draft) > 1:
                yield draft.drop(i)
            choices = self.random.sample(self.bank, min(SWAPS + 1, len(self.bank)))
            yield from (draft.swap(i, word) for word in choices[:SWAPS])
            yield draft.insert(i, choices[-1])
            if i + 1 < len(draft):
                yield draft.move(i, i + 1)

    def _try(self, candidates: list[str], edits: list[int], enough: int) -> list[int]:
        """Tests candidates of so many edits each until enough hold on fresh noise.

        Returns the numbers of all that are new, closest to holding first.
        """
        new = [i for i, text in enumerate(candidates) if text and text not in self.seen]
        new = list({candidates[i]: i for i in reversed(new)}.values())[::-1]
        self.seen.update(candidates[i] for i in new)
        if not new:
            return []
        condition = self.text.encode([candidates[i] for i in new])
        screened = self.screen(condition)
        alike = similarity(condition, self.original)
        passed = screened.holds(self.alpha).nonzero().flatten().tolist()
        passed.sort(key=lambda k: (edits[new[k]], -alike[k].item()))
        for start in range(0, len(passed), FINALISTS):
            finalists = passed[start : start + FINALISTS]
            tested = self.test(condition[finalists])
            for row in tested.holds(self.alpha).nonzero().flatten().tolist():
                k = finalists[row]
                self.held.append(_Held(candidates[new[k]], condition[[k]], tested[row], edits[new[k]], alike[k].item()))
            if len(self.held) >= enough:
                break
        closest = (screened.score - self.screen.before.score + 4 * screened.guidance_similarity).argsort().tolist()
        return [new[k] for k in closest]

    def _chosen(self) -> Mended:
        rows = ordinary(torch.cat([held.measure.score for held in self.held]))
        best = min((self.held[row] for row in rows), key=lambda held: (held.edits, -held.alike))
        changed = changes(self.start, best.text, self.significance)
        return Mended(self._report(None, best.text, changed, best.measure, best.alike), best.condition)

    def _failed(self, reason: str) -> Mended:
        return Mended(self._report(reason, self.prompt, [], self.test.before, 1.0))

    def _report(
        self, reason: str | None, rewritten: str, changed: list[WordChange], after: Measure, alike: float
    ) -> Mitigation:
        return Mitigation(
            method="rewrite",
            held=reason is None,
            reason=reason,
            original=self.prompt,
            rewritten=rewritten,
            words=changed,
            similarity=alike,
            **numbers(self.test, after, self.screen),
        )


def changes(before: Words, after: str, significance: dict[str, float]) -> list[WordChange]:
    """Returns the words that differ, in order, as few as possible; inserted words have no significance of their own."""
    old, new = before.words, Words.of(after).words
    changed = []
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        for k in range(max(b - a, d - c)):
            word, became = old[a + k] if a + k < b else "", new[c + k] if c + k < d else ""
            sort = "swap" if word and became else "drop" if word else "insert"
            changed.append(WordChange(sort, word, became, significance.get(word, 0.0)))
    return changed


def _proposals(rewriter: Rewriter, prompt: str) -> list[str]:
    try:
        texts = rewriter(prompt)
    except Exception as error:  # whatever a user's function raises
        raise InputError(f"the rewriter raised {type(error).__name__}: {error}") from error
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"the rewriter must return a list of prompts, not {texts!r}")
    return [" ".join(text.split()) for text in texts]
