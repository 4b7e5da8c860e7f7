"""Does a model hold these pictures? Their words are checked, the suspicious ones made, and the images compared."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import InputError
from ..files import write_file
from ..guard import Guard
from ..images import BUNDLE, open_image, png
from ..progress import Progress
from ..run_folder import locked
from ..sidecar import Signer, write_bundle
from ..similarity import ReferenceIndex, compare
from .captions import Captions, read_captions
from .evidence import ALPHA, Evidence, Extraction, weigh
from .page import Exhibit, render
from .run import Run, Sampling, open_run

SUSPICION = 0.05
PAGE, REPORT, FOUND, NAME = "index.html", "extraction.json", "found", "extraction"
INDEX = "pictures.index"
_OWN = re.compile(r"\d{2}(\.(beside|map))?\.png(\.cryptomnesia\.json|\.c2pa)?")
SHOWN = 60  # prompts on the page, and in the bundle


class Extractor:
    """One extraction, step by step: `check`, `make`, `weigh`, `write`; each goes on where it was stopped.

    Args:
        guard: A guard of the model; with a calibration, or else `suspicion` is 1.
        captions: The pictures and the words.
        folder: Where all of it is kept; must be there.
        sampling: How images are made.
        suspicion: Images are made of prompts whose check has a p-value of at most this; 1 for all prompts.
        alpha: False discovery rate of what is called reproduced.
        encoder: For `similarity.compare`.

    Raises:
        InputError: Odd rates, a model without verdicts where they are needed, or a folder with other settings.
    """

    def __init__(
        self,
        guard: Guard,
        captions: Captions,
        folder: Path,
        *,
        sampling: Sampling | None = None,
        suspicion: float = SUSPICION,
        alpha: float = ALPHA,
        encoder: Any = None,
    ):
        if not 0 < suspicion <= 1 or not 0 < alpha < 1:
            raise InputError(
                f"suspicion is above 0 and up to 1, alpha between 0 and 1, not {suspicion:g} and {alpha:g}"
            )
        if guard.calibration is None and suspicion < 1:
            raise InputError(
                f"no prompt is suspicious without a calibration ({guard.why_uncalibrated or 'none was given'}): "
                "calibrate the model, or make images of all prompts with a suspicion of 1"
            )
        self.guard, self.captions, self.folder = guard, captions, folder
        self.sampling, self.suspicion, self.alpha = sampling or Sampling(), suspicion, alpha
        self.encoder = encoder
        self.run: Run = open_run(folder, self._settings())

    def _settings(self) -> dict[str, Any]:
        calibration = self.guard.calibration
        kept = asdict(self.sampling) | {"seed": str(self.sampling.seed)}
        del kept["seeds"]  # more of them can be added
        identity = None if calibration is None else calibration.identity
        return {"model": self.guard.denoiser.fingerprint, "calibration": identity, **kept}

    @property
    def prompts(self) -> list[str]:
        """The prompts, each once."""
        return [asked.prompt for asked in self.captions.asked]

    @property
    def suspicious(self) -> list[str]:
        """Those of the prompts that images are made of, the most suspicious first; to be asked after `check`."""
        checked = {prompt: self.run.checked[prompt]["p_value"] for prompt in self.prompts}
        chosen = [p for p, value in checked.items() if self.suspicion == 1 or (value or 1) <= self.suspicion]
        return sorted(chosen, key=lambda prompt: checked[prompt] if checked[prompt] is not None else 1)

    def check(self) -> Iterator[int]:
        """Checks the prompts; yields how many are done. Errors as in `Guard.check_many`."""
        return self.run.check(self.guard, self.prompts, self.sampling)

    def make(self) -> Iterator[int]:
        """Makes the images of the suspicious prompts; yields how many are done. Errors as in `Run.make`."""
        return self.run.make(self.guard, self.suspicious, self.sampling)

    def weigh(self, progress: Progress | None = None) -> Extraction:
        """Compares the images with the pictures, and returns what they amount to; `progress` counts pictures.

        Errors are those of `similarity.compare`.
        """
        made = {prompt: self.sampling.each for prompt in self.prompts if prompt in set(self.suspicious)}
        files = [self.run.image(prompt, seed) for prompt, seeds in made.items() for seed in seeds]
        compared = None
        if files:
            index = ReferenceIndex.build(
                list(self.captions.pictures), store=self.folder / INDEX, encoder=self.encoder, progress=progress
            )
            # of few pictures no p-value is as small as alpha: what is nearer than all of them is weighed below
            compared = compare(files, index, encoder=self.encoder, alpha=max(self.alpha, 1 / (len(index) + 1)))
        evidence = weigh(self.captions, self.run.checked, made, compared, self.alpha)
        found = Extraction(self.captions, evidence, self.alpha, self.suspicion)
        return replace(
            found,
            rejected={} if compared is None else self._named(compared.reference_rejected),
            facts=tuple(self._facts()),
        )

    def write(
        self, found: Extraction, model: str, signer: Signer | None = None, progress: Progress | None = None
    ) -> dict[str, str]:
        """Writes what was found as a folder to hand on: page, report, images, and a bundle that names them all.

        Args:
            found: What `weigh` gave.
            model: The model's name, for the page.
            signer: What signs the images' provenance and the bundle; None for neither.
            progress: progress(done, total), in prompts whose images are located.

        Returns:
            The paths by what they are: page, report, bundle.

        Raises:
            InputError, SidecarError: A file cannot be written.
            NonFiniteError, OutOfMemory: As in `Guard.locate`.
        """
        place = self.folder / FOUND
        place.mkdir(exist_ok=True)
        shown = [one for one in found.evidence if one.copies][:SHOWN]
        exhibits, files = [], []
        for number, one in enumerate(shown, 1):
            exhibit, written = self._exhibit(place / f"{number:02}", one, signer)
            exhibits.append(exhibit)
            files += written
            if progress is not None:
                progress(number, len(shown))
        for stale in set(place.iterdir()) - set(files):
            if _OWN.fullmatch(stale.name):  # of what was found before
                stale.unlink()
        report, page, bundle = self.folder / REPORT, self.folder / PAGE, self.folder / f"{NAME}{BUNDLE}"
        write_file(report, (json.dumps(found.to_dict() | {"model": model}, indent=1) + "\n").encode(), "report")
        write_file(page, render(found, model, exhibits, signed=signer is not None).encode("utf-8", "replace"), "page")
        about = {"title": found.headline(), "model": model, "fingerprint": self.guard.denoiser.fingerprint}
        write_bundle(bundle, [report, page, *files], about, signer)
        return {"page": str(page), "report": str(report), "bundle": str(bundle)}

    def _exhibit(self, stem: Path, one: Evidence, signer: Signer | None) -> tuple[Exhibit, list[Path]]:
        """One prompt's best image beside the picture, located, saved with its provenance; and the files of it."""
        copy = one.copies[0]
        beside, overlay = copy.comparison.plot(), None
        evidence = [("comparison", _written(stem, "beside", beside))]
        report, file = self.run.locate(self.guard, one.asked.prompt, copy.seed, self.sampling)
        if report is not None:
            overlay = open_image(file)
            evidence.append(("heatmap", _written(stem, "map", overlay)))
        path = stem.with_suffix(".png")
        image = open_image(self.run.image(one.asked.prompt, copy.seed))
        sidecar = self.guard.save(
            image,
            path,
            report,
            seed=copy.seed,
            prompt=one.asked.prompt,
            sampling=self._sampling(),
            evidence=evidence,
            c2pa=signer,
            embed=None if signer is None else True,
            store=False,
        )
        original = open_image(self.captions.pictures[copy.picture])
        files = [path, sidecar, *(file for _, file in evidence)]
        return Exhibit(one, copy, path.name, image, original, beside, overlay), files

    def _named(self, reasons: Mapping[str, str]) -> dict[str, str]:
        """Reasons by names in the folder: where it lies is nobody's business who is handed the evidence."""
        place = f"{self.captions.folder}/"
        return {name.removeprefix(place): reason.replace(place, "") for name, reason in reasons.items()}

    def _sampling(self) -> dict[str, Any]:
        known = {"steps": self.sampling.steps, "guidance_scale": self.sampling.guidance}
        return {name: value for name, value in known.items() if value is not None}

    def _facts(self) -> Iterator[tuple[str, str]]:
        calibration, sampling = self.guard.calibration, self.sampling
        yield "model", f"fingerprint {self.guard.denoiser.fingerprint}"
        if calibration is not None:
            yield "calibration", f"{calibration.identity}: {calibration.n} benign prompts, made {calibration.created}"
        steps = "the pipeline's own steps" if sampling.steps is None else f"{sampling.steps} steps"
        scale = "own guidance" if sampling.guidance is None else f"guidance {sampling.guidance:g}"
        yield "images", f"{sampling.seeds} of each suspicious prompt, seeds from {sampling.seed}, {steps}, {scale}"
        yield "counted as found", f"images that stand at a false discovery rate of {self.alpha:g}"
        yield "made with", f"cryptomnesia {__version__}: cryptomnesia extract"


def extract(
    guard: Guard,
    images: str | Path,
    out: str | Path,
    *,
    captions: str | Path | None = None,
    prompts: Iterable[str] = (),
    titles: bool = False,
    sampling: Sampling | None = None,
    suspicion: float = SUSPICION,
    alpha: float = ALPHA,
    encoder: Any = None,
    model: str = "the model",
    signer: Signer | None = None,
    progress: Progress | None = None,
) -> Extraction:
    """Tells which pictures of a folder a model likely reproduces, and writes the evidence into another folder.

    The words of each picture (see `read_captions`) are checked before anything is made; images are made of those that
    look memorized, and compared with all pictures. The same call goes on where it was stopped.

    Args:
        guard: A guard of the model; with a calibration, unless `suspicion` is 1.
        images: The folder of pictures.
        out: Where page, report, images and the bundle go; made if it is not there.
        captions, prompts, titles: As for `read_captions`.
        sampling, suspicion, alpha, encoder: As for `Extractor`.
        model: The model's name, for the page.
        signer: What signs the evidence, e.g. what `sidecar.load_signer` gives.
        progress: progress(done, None), in prompts checked and images made.

    Returns:
        What was found.

    Raises:
        InputError: The folder, a list, a rate or the model cannot be used; or `out` holds another extraction.
        CalibrationError, NotApplicable, NonFiniteError, OutOfMemory: As in `Guard.check` and `Guard.locate`.
        SidecarError: The evidence cannot be written or signed.
    """
    known = read_captions(images, captions, prompts, titles=titles)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "extraction"):
        options: dict[str, Any] = {"sampling": sampling, "suspicion": suspicion, "alpha": alpha, "encoder": encoder}
        work, before = Extractor(guard, known, folder, **options), 0
        for steps in (work.check, work.make):
            done = 0
            for done in steps():
                if progress is not None:
                    progress(before + done, None)
            before += done
        found = work.weigh()
        work.write(found, model, signer)
    return found


def _written(stem: Path, kind: str, picture: Any) -> Path:
    path = stem.with_name(f"{stem.name}.{kind}.png")
    write_file(path, png(picture), "picture")
    return path
