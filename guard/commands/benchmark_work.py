"""The work of `cryptomnesia benchmark`: calibrating, measuring, making images, and what is written."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .benchmark_terminal import watch
from .calibrate import measure as calibrate_all
from .console import stderr, tell_cost, waiting
from .files import write_text
from .models import DEMO

if TYPE_CHECKING:
    from torch import Tensor

    from ..benchmark.evaluation import Evaluation
    from ..benchmark.generation import Generation
    from ..benchmark.lists import Lists
    from ..benchmark.page import Generated
    from ..benchmark.reproduction import References
    from ..benchmark.run import Run
    from ..calibration import Calibration
    from ..calibration_run import CalibrationRun
    from ..denoiser import Denoiser
    from .sampling import Sampler

CALIBRATION = "benchmark.calibration.json"
DRAWS = 4
ALPHA = 0.01
PER_CALL = 4  # images of a prompt; fewer where the device has no memory for them


class Work:
    """One benchmark from its calibration to its page.

    Args:
        run: What is measured so far.
        lists: The prompts.
        denoiser: The model.
        model: Its name, as the user gave it.
        seed: Seed of the noise.
        size: Height and width in pixels.
        batch_rows: Most rows of a call of the network.

    Raises:
        NotApplicable: The model cannot be judged.
    """

    def __init__(
        self,
        run: "Run",
        lists: "Lists",
        denoiser: "Denoiser",
        *,
        model: str,
        seed: int,
        size: tuple[int | None, int | None],
        batch_rows: int | None,
    ):
        denoiser.require_guidance()
        self.run, self.lists, self.denoiser, self.model = run, lists, denoiser, model
        self.seed, self.batch_rows, self.shape = seed, batch_rows, denoiser.latent_shape(*size)
        self.calibration: Calibration | None = None
        self.calibrating: CalibrationRun | None = None
        self.calibrated_on = ""
        self.draws = DRAWS
        self.generation: Generation | None = None
        self.sampler: Sampler | None = None

    # --- what will be done ---

    def prepare(
        self, given: "Calibration | None", benign: list[str] | None, alpha: float | None, draws: int | None
    ) -> None:
        """Finds the calibration, or what one is to be made of, and refuses a folder with other measurements.

        Args:
            given: The calibration that was named.
            benign: The prompts to calibrate with that were named.
            alpha, draws: As the user gave them.

        Raises:
            InputError: The folder holds a run of another model or setting; or alpha is out of reach.
            CalibrationError: The calibration that was named does not fit.
        """
        from ..calibration_misfit import binding_of
        from ..calibration_run import CalibrationRun
        from ..calibration_store import find

        found, words = given, "the calibration that was given"
        if given is not None:
            given.require(self.denoiser, draws or given.draws, self.shape)
            if given.time is not None:
                raise InputError(
                    f"the calibration is for the timestep {given.time} of a sampler, and methods are compared where "
                    "the model's own sampling starts: give one that was made without --steps"
                )
        elif benign is None:
            found, _ = find(self.denoiser, self.shape, draws)
            words = "the calibration that is kept for the model"
            if found is not None and (found.prompts in self.lists.whole.values() or found.time is not None):
                found = None  # it would be tried on its own prompts, or is of another level than the other methods
        self.draws = draws or (DRAWS if found is None else found.draws)
        if found is None:
            texts, words = self._benign(benign)
            file = self.run.folder / CALIBRATION
            self.calibrating = CalibrationRun(
                self.denoiser,
                texts,
                draws=self.draws,
                seed=self.seed,
                alpha=alpha or ALPHA,
                partial=file.with_name(f"{file.name}.partial"),
                latent_shape=self.shape,
            )
            self.calibration = self.calibrating.finished(file)
            self.calibrated_on = f"{len(texts)} {words}"
        else:
            least = 1 / (found.n + 1)
            if alpha is not None and alpha < least:
                raise InputError(
                    f"--alpha {alpha:g} is out of reach: {found.n} benign prompts support {least:.2g} or more"
                )
            self.calibration = found if alpha is None else replace(found, alpha=alpha)
            self.calibrated_on = f"{found.n} benign prompts ({words})"
        bound = binding_of(self.denoiser, self.shape, self.draws)._asdict()
        size = "x".join(map(str, bound.pop("latent_shape")))
        self.run.bind({"model": bound.pop("fingerprint"), "size": size, **bound})

    def _benign(self, given: list[str] | None) -> tuple[list[str], str]:
        from ..benchmark.lists import without
        from ..prompts import benign

        if given is not None:
            return given, "benign prompts that were given for it"
        return without(benign(), self.lists.texts), "benign prompts of the shipped list"

    def sample_with(
        self,
        images: int,
        steps: int | None,
        guidance: float | None,
        folder: Path | None,
        references: "References | None",
    ) -> None:
        """Decides how images are made. Raises InputError where the model makes none, or the folder holds others.

        Args:
            images: Images of each memorized prompt.
            steps, guidance: As the user gave them; None for the pipeline's own.
            folder, references: Where training images lie, and these; None without them.
        """
        from ..audit.manifest import files_digest
        from ..benchmark.generation import Generation
        from ..demo.showcase import STEPS
        from .sampling import Sampler

        steps = steps or (STEPS if self.model == DEMO else None)
        self.sampler = Sampler(self.denoiser, self.shape, count=images, seed=self.seed, steps=steps, guidance=guidance)
        settings = {
            "images": images,
            "settings": self.sampler.settings,
            "references": None if folder is None else files_digest(folder),
        }
        self.generation = Generation(self.run, self.lists.positives, settings, references)

    def tell_cost(self) -> None:
        """Says on stderr what is still to be done, and what that costs."""
        from ..benchmark.methods import rows_per_prompt
        from ..benchmark.run import CHUNK
        from ..cost import rows_per_image

        console, left = stderr(), self.run.total - self.run.done
        if self.run.done and left:
            words = f"goes on after {self.run.done} of {self.run.total} prompts, kept in {self.run.folder}"
            console.print(words, soft_wrap=True)
        elif self.run.done:
            console.print("nothing to measure: all of it was measured before", style="dim")
        each, per_call = rows_per_prompt(self.denoiser, self.draws)
        rows = each * left + per_call * math.ceil(left / CHUNK)
        words = f"measuring {left} prompts for all methods"
        if self.calibration is None and self.calibrating is not None:
            rows += self.calibrating.forward_rows
            words += f", and calibrating with {self.calibrating.total - self.calibrating.done},"
        if rows:
            tell_cost(words, rows, rows / rows_per_image(self.denoiser))
        if self.generation is not None and self.sampler is not None:
            missing = len(self.generation.texts) - self.generation.done
            if missing:
                count = missing * len(self.sampler.seeds)
                console.print(f"then {count:,} images to make: {self.sampler.settings}", soft_wrap=True)

    @property
    def so_far(self) -> str:
        """How far it is, to follow "stopped"."""
        if self.run.done < self.run.total or self.generation is None:
            return f"after {self.run.done} of {self.run.total} prompts"
        return f"after the images of {self.generation.done} of {len(self.generation.texts)} prompts"

    # --- doing it ---

    def finish(self, page: Path, report: Path, notes: list[str]) -> dict[str, Any]:
        """Does what is missing, writes page, report and calibration, and returns the report.

        Raises:
            NotApplicable, NonFiniteError, OutOfMemory: As in `memorization_score`.
            InputError: A file cannot be written.
            KeyboardInterrupt: The user stopped it; what is done is kept.
        """
        file = self.run.folder / CALIBRATION
        if self.calibration is None and self.calibrating is not None:
            calibrate_all(self.calibrating)
            self.calibration = self.calibrating.finish(file)
        calibration: Calibration = self.calibration  # type: ignore[assignment]
        calibration.save(file)
        steps = self.run.steps(self.denoiser, draws=self.draws, shape=self.shape, batch_rows=self.batch_rows)
        watch(steps, "measuring", self.run.done, self.run.total)
        if self.generation is not None and self.sampler is not None:
            sampler = self.sampler
            made = self.generation.steps(lambda text: sampler.images(text, per_call=PER_CALL))
            watch(made, "making images", self.generation.done, len(self.generation.texts))
        return self._written(calibration, page, report, notes)

    def _written(self, calibration: "Calibration", page: Path, report: Path, notes: list[str]) -> dict[str, Any]:
        from ..benchmark.evaluation import evaluate
        from ..benchmark.methods import METHODS
        from ..benchmark.page import BenchmarkPage, Cost, render
        from ..cost import rows_per_image

        made = None if self.generation is None else self.generation.reproductions()
        with waiting("comparing"):
            scores = self.run.scores(calibration.combination)
            scores["default"] -= self._expected(calibration)
            evaluation = evaluate(self.lists, scores, calibration, made, seed=self.seed)
        rows = self.run.forward_rows
        cost = Cost(rows, rows / rows_per_image(self.denoiser), self.run.seconds, len(evaluation.prompts))
        generated = self._generated(evaluation)
        facts = self._facts(calibration)
        name = "the built-in model" if self.model == DEMO else Path(self.model).name
        document = {
            "schema": "cryptomnesia/benchmark/1",
            "model": name,
            "facts": dict(facts),
            "notes": notes,
            "alpha": calibration.alpha,
            "threshold": calibration.threshold if math.isfinite(calibration.threshold) else None,
            "calibrated_on": self.calibrated_on,
            "cost": asdict(cost),
            "methods": [asdict(method) for method in METHODS],
            **evaluation.to_dict(),
            "generated": self._about_images(generated),
            "files": {
                "page": str(page),
                "report": str(report),
                "calibration": str(self.run.folder / CALIBRATION),
            },
        }
        shown = BenchmarkPage(name, evaluation, calibration, self.calibrated_on, cost, notes, generated, facts)
        write_text(report, json.dumps(document, indent=1) + "\n")
        write_text(page, render(shown))
        return document

    def _expected(self, calibration: "Calibration") -> "Tensor":
        """What the words of the prompts lead to take off their scores, (P,) float64."""
        import torch

        from ..benchmark.run import CHUNK
        from ..condition import mean_text
        from ..protocols import encoder_of

        texts, expected = self.run.texts, torch.zeros(self.run.total, dtype=torch.float64)
        if calibration.expectation is not None:
            encode = encoder_of(self.denoiser).encode
            for start in range(0, len(texts), CHUNK):
                chunk = slice(start, start + CHUNK)
                expected[chunk] = calibration.expected(mean_text(encode(list(texts[chunk]))))
        return expected

    def _generated(self, evaluation: "Evaluation") -> "Generated | None":
        from ..benchmark.page import SHOWN, Exhibit, Generated, KindMade

        if self.generation is None or self.sampler is None:
            return None
        about = self.generation.reproductions()
        kinds = [
            KindMade(
                name,
                len(texts),
                sum(about[text].reproduced for text in texts),
                sum(about[text].to_reference is not None for text in texts),
            )
            for name, texts in self.lists.memorized.items()
        ]
        flagged = {prompt.text: prompt.memorized for prompt in evaluation.prompts}
        differing = [text for text in about if flagged[text] != about[text].reproduced]
        agreeing = sorted((text for text in about if text not in differing), key=lambda text: not flagged[text])
        texts = [*differing[: SHOWN // 2], *agreeing]
        exhibits = [
            Exhibit(text, flagged[text], about[text], *self.generation.pictures(text)) for text in texts[:SHOWN]
        ]
        return Generated(self.sampler.seeds, self.sampler.settings, kinds, exhibits)

    def _about_images(self, generated: "Generated | None") -> dict[str, Any] | None:
        if generated is None or self.generation is None:
            return None
        prompts = [
            {"text": text, **asdict(about), "reproduced": about.reproduced}
            for text, about in self.generation.reproductions().items()
        ]
        return {
            "seeds": [str(seed) for seed in generated.seeds],
            "settings": generated.settings,
            "seconds": self.generation.seconds,
            "kinds": [asdict(kind) for kind in generated.kinds],
            "prompts": prompts,
        }

    def _facts(self, calibration: "Calibration") -> list[tuple[str, str]]:
        from .. import __version__
        from ..benchmark.run import CHUNK

        name = "built-in" if self.model == DEMO else self.model
        return [
            ("model", f"{name}, fingerprint {self.denoiser.fingerprint}"),
            ("calibration", f"{calibration.identity}: {self.calibrated_on}, made {calibration.created}"),
            (
                "noise",
                f"{self.draws} draws, seed {self.seed}, others for every {CHUNK} prompts; compared by the "
                f"{self.denoiser.reference}",
            ),
            ("computed", f"in {str(self.denoiser.dtype).removeprefix('torch.')} on {self.denoiser.device}"),
            ("made with", f"cryptomnesia {__version__}: cryptomnesia benchmark"),
        ]
