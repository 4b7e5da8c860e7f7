"""Mitigates the flagged images of a guarded call, and says how to make the call again."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ..adapters.pipeline_call import initial_noise, original_call, parameters
from ..adapters.request import Request, embedded
from ..calibration import Calibration
from ..condition import TOKENS, without_extras
from ..denoiser import Denoiser
from ..errors import CryptomnesiaError, NotApplicable
from ..memory import is_out_of_memory
from ..mitigation.mitigate import failed, mitigate, stacked
from ..mitigation.result import Mended
from ..protocols import PipelineDenoiser
from ..report import MemorizationReport, Method
from ..signals.draws import derived_seed
from .first_step import FirstStep
from .policy import Policy


class Mitigating:
    """What was tried for the images of one guarded call.

    Args:
        denoiser, host: The model, as what it is and as what its pipeline adds.
        request: What the user asked for.
        policy: What says how to mitigate.

    Attributes:
        tried: The mitigation of each image by its number; empty until something was flagged.
    """

    def __init__(self, denoiser: Denoiser, host: PipelineDenoiser, request: Request, policy: Policy):
        self.denoiser, self.host, self.request, self.policy = denoiser, host, request, policy
        self.tried: dict[int, Mended] = {}

    def again(
        self, step: FirstStep, reports: Sequence[MemorizationReport], calibration: Calibration | None
    ) -> dict[str, Any] | None:
        """Tries to mitigate every image of every prompt that was flagged.

        Returns:
            The arguments to make the pipeline's call with once more; None if nothing held, or no image was flagged.
        """
        method = self.policy.method
        if method is None or calibration is None:
            return None
        numbers, mitigated = self.request.numbers, {}  # type: ignore[var-annotated]
        flagged = sorted({numbers[i] for i, report in enumerate(reports) if report.memorized})
        for i in (i for i, number in enumerate(numbers) if number in flagged):
            # each image needs a noise of its own, but all images of a prompt share its wording
            key = i if method == "reseed" else numbers[i]
            if key not in mitigated:
                mitigated[key] = self._one(method, step, i, calibration)
            self.tried[i] = mitigated[key]
        held = {i: mended for i, mended in self.tried.items() if mended.mitigation.held}
        try:
            return self._arguments(method, step, held) if held else None
        except NotApplicable as reason:
            self.tried |= {i: failed(method, self.request.prompts[i], str(reason)) for i in held}
            return None

    def reseeded(self) -> set[int]:
        """Returns the images that another initial noise was chosen for."""
        return {i for i, mended in self.tried.items() if mended.noise is not None and mended.mitigation.held}

    def with_mitigations(self, reports: Sequence[MemorizationReport]) -> list[MemorizationReport]:
        """Returns the reports, one per image, with what was tried for each."""
        return [
            self._with_mitigation(self.tried[i], report) if i in self.tried else report
            for i, report in enumerate(reports)
        ]

    @staticmethod
    def _with_mitigation(mended: Mended, report: MemorizationReport) -> MemorizationReport:
        about = mended.mitigation
        if about.held and report.memorized:
            about = replace(about, held=False, reason="it did not hold when sampling began")
        return replace(report, mitigation=about)

    def _one(self, method: Method, step: FirstStep, image: int, calibration: Calibration) -> Mended:
        prompt = self.request.prompts[image]
        try:
            if method in ("rewrite", "attenuate"):
                prompt = self.request.require_rewritable(image)
                lengths = self._lengths(step, image, prompt)
                if lengths[0] != lengths[1]:
                    raise NotApplicable(
                        f"this call reads {lengths[0]} tokens, the check {lengths[1]}: leave out max_sequence_length, "
                        "and give prompts of other lengths one by one"
                    )
            return mitigate(
                method,
                self.denoiser,
                calibration,
                prompt,
                without_extras(step.positive[[image]], self.denoiser.empty),
                seed=derived_seed(self.policy.seed, "mend", image),
                shape=step.shape,
                rewriter=self.policy.rewriter,
                words=self.policy.words,
            )
        except (CryptomnesiaError, RuntimeError) as error:
            if not isinstance(error, CryptomnesiaError) and not is_out_of_memory(error):
                raise
            return failed(method, prompt, str(error))

    def _lengths(self, step: FirstStep, image: int, prompt: str) -> list[int]:
        """How many tokens the call reads, and the check."""
        if TOKENS in step.positive.tensors:  # as many as the prompt has
            return [int(step.positive.tensors[TOKENS][image]), int(self.host.encode(prompt).tensors[TOKENS][0])]
        return [c.tensors["text"].shape[1] for c in (step.positive, self.denoiser.empty)]

    def _arguments(self, method: Method, step: FirstStep, held: dict[int, Mended]) -> dict[str, Any]:
        images = range(self.request.images)
        if method == "reseed":
            noise = initial_noise(self.host.pipe, step.noise).to(self.denoiser.dtype)
            rows = [held[i].noise if i in held else noise[i : i + 1] for i in images]
            chosen = torch.cat([row.to(noise) for row in rows if row is not None])
            return self.request.with_noise(self.host.packed(chosen))
        kept = [step.positive[[i]] for i in images]
        mended = [held[i].condition if i in held else None for i in images]
        rows = [kept[i] if row is None else row for i, row in enumerate(mended)]
        embeddings = self.host.as_arguments(stacked(rows), step.negative)
        return embedded(self.request.arguments, embeddings, parameters(original_call(self.host.pipe)))
