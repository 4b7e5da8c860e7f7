"""A guard in front of a sampler: judges what is about to be sampled, and gives what to sample with, or nothing."""

import logging
from dataclasses import dataclass
from typing import Any

import torch

from ..guard.adapters.comfyui import ComfyDenoiser
from ..guard.adapters.comfyui_text import encoded
from ..guard.attached.policy import Policy
from ..guard.errors import InputError
from ..guard.guard import Guard
from ..guard.mitigation.result import Mended
from ..guard.verdict import not_applicable
from .mitigating import mitigated
from .values import described

OFF = "off"
POLICIES = ("warn", "block", "rewrite", "embed", OFF)
BY_POLICY = "as the policy says"
UNVERIFIED = (BY_POLICY, "allow", "warn", "block")
FALLBACK = ("warn", "block")
OFF_TEXT = "off: nothing was measured"


def blocks_unverified(policy: str, unverified: str) -> bool:
    """Returns whether an image that could not be checked is stopped."""
    return policy != OFF and _rules(policy, unverified, "warn", 0).unverified == "block"


def _rules(policy: str, unverified: str, fallback: str, seed: int) -> Policy:
    given = None if unverified == BY_POLICY else unverified
    return Policy.of(policy, fallback=fallback, unverified=given, seed=seed, rewriter=None, words=None)


@dataclass(frozen=True)
class Guarded:
    """What came of it.

    Attributes:
        report: The report on what is sampled; None where the guard is off.
        positive: The conditioning to sample with.
        stopped: Why nothing may be sampled, in one line; None where it may.
    """

    report: dict[str, Any] | None
    positive: Any
    stopped: str | None = None

    @property
    def text(self) -> str:
        """The same in plain words."""
        if self.report is None:
            return OFF_TEXT
        lines = described(self.report)
        return lines if self.stopped is None else f"Cryptomnesia made no image: {self.stopped}\n{lines}"


def guarded(
    model: Any,
    clip: Any,
    positive: Any,
    latent: dict[str, Any],
    prompt: str | None,
    *,
    policy: str,
    unverified: str,
    fallback: str,
    calibration: str,
    seed: int,
    partial: str | None = None,
) -> Guarded:
    """Judges a conditioning before it is sampled, and mitigates it where the policy says so.

    Args:
        model, clip, positive, latent: As the sampler gets them; clip is the one that the conditioning was made with.
        prompt: The prompt's text, where the workflow tells it.
        policy: One of POLICIES; "off" measures nothing.
        unverified: One of UNVERIFIED: what becomes of an image for whose prompt there is no verdict.
        fallback: One of FALLBACK: what becomes of one whose mitigation did not hold.
        calibration: A file's name, "automatic" or "none".
        seed: The seed of the guard's own noise.
        partial: Why sampling does not start from pure noise, where the sampler's settings say so.

    Returns:
        What to sample with, or that nothing may be.

    Raises:
        CalibrationError: The calibration that was chosen does not fit.
        InputError: A policy that there is none of, or a conditioning of another model.
    """
    if policy == OFF:
        return Guarded(None, positive)
    rules = _rules(policy, unverified, fallback, seed)
    denoiser = ComfyDenoiser(model, clip, like=positive)
    if partial is not None:
        report, better = not_applicable(denoiser, prompt, partial, seed=seed), None
    else:
        rewriting = _Rewriting(denoiser, positive, prompt, seed) if policy == "rewrite" else None
        report, better = mitigated(
            denoiser,
            latent,
            prompt,
            denoiser.read(positive),
            method=rules.method,
            when="flagged",
            calibration=calibration,
            seed=seed,
            mitigate=rewriting,
        )
        if better is not None:
            positive = denoiser.write(better) if rewriting is None else rewriting.written
    stopped = None
    if report.memorized and rules.blocks:
        stopped = f"the prompt is likely memorized, and the policy is {policy}"
        if rules.method is not None:
            stopped = f"the prompt is likely memorized, and {policy} did not help"
    elif not report.verified and rules.unverified == "block":
        stopped = f"there is no verdict ({report.verdict}), and what could not be checked is blocked"
    result = Guarded(report.to_dict(), positive, stopped)
    if stopped is not None or report.memorized or (not report.verified and rules.unverified == "warn"):
        logging.warning("Cryptomnesia: %s", stopped or described(result.report or {}, words=False).splitlines()[0])
    return result


class _Rewriting:
    """Rewrites the words of a conditioning of one text, and keeps all else that it holds: ControlNets, guidance."""

    def __init__(self, denoiser: ComfyDenoiser, positive: Any, prompt: str | None, seed: int):
        self.denoiser, self.positive, self.prompt, self.seed = denoiser, positive, prompt, seed
        self.written: Any = None

    def __call__(self, guard: Guard, shape: tuple[int, int, int]) -> Mended:
        """Returns the mitigation. Raises InputError where the conditioning is not that of one known text alone."""
        model, clip = self.denoiser.model, self.denoiser.clip
        if self.prompt is None or len(self.positive) != 1:
            raise InputError("the workflow does not tell the one text behind the conditioning; use Rewrite Prompt")
        own = encoded(clip, self.prompt)
        if len(own) != 1 or not _same(own[0][0], self.positive[0][0]):
            raise InputError("the conditioning is not what this CLIP makes of the prompt alone; use Rewrite Prompt")
        plain = Guard(ComfyDenoiser(model, clip), guard.calibration, seed=self.seed)  # of the text alone
        result = plain.mitigate(self.prompt, "rewrite", shape=shape)
        if result.mitigation.rewritten is None or result.condition is None:
            return result
        ((text, options),) = encoded(clip, result.mitigation.rewritten)
        kept = {**self.positive[0][1], **{name: value for name, value in options.items() if name != "guidance"}}
        self.written = [[text, kept]]
        return Mended(result.mitigation, condition=self.denoiser.read(self.written))


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.float().cpu(), b.float().cpu(), rtol=1e-3, atol=1e-4)
