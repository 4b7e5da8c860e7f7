"""Audits of images: what their sidecars say, who may have made them, and which signature lies closest.

Each image gets what applies. An image that can be decoded but not measured, e.g. since it has transparent parts, keeps
its row, with a note; one that cannot be decoded is a reject.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..attribution import Candidate, attribute, load_calibration, load_library
from ..errors import InputError, NonFiniteError, NotApplicable, require
from ..files import write_atomically
from ..image_model import ImageModel
from ..images import read_image
from ..pixels import read_picture
from ..prompts.captions import caption_of
from ..sidecar import Verification, verify
from ..sidecar.digests import file_sha256, pixels_of
from ..signals.spectral import cosine_distance, signature
from .inputs import Images
from .rows import Reject, Row, reject
from .worker import About

MEMBERSHIP, STATISTICS = "membership.json", "membership.statistics.json"


@dataclass(frozen=True)
class ImageJob:
    """What to find out about the images of a folder.

    Attributes:
        folder: The folder that the images lie in.
        trust: Certificates of signers that are trusted.
        candidates: Models that may have made them, by name.
        calibration: What `cryptomnesia attribute --learn` wrote for these candidates.
        model: The model whose errors are compared with a library of signatures, and the library.
        library: A folder of signatures, or one file.
        open_model: Loads a denoiser by the name of its model.
        size: Height and width in pixels that images are brought to, for models that do not tell.
    """

    folder: Path
    trust: tuple[Path, ...] = ()
    candidates: Mapping[str, str] = field(default_factory=dict)
    calibration: Path | None = None
    model: str | None = None
    library: Path | None = None
    open_model: Callable[[str], Any] | None = None
    size: tuple[int, int] | None = None

    kind, seed, most_rows = "images", 0, 16  # decoded images take memory

    def settings(self) -> dict[str, Any]:
        """Returns what the results rest on besides files, as plain data for run.json."""
        return {"candidates": list(self.candidates), "model": None if self.model is None else Path(self.model).name}

    def open(self) -> "ImageWork":
        """Loads the models, and returns the work.

        Raises InputError, CalibrationError or NotApplicable where files or models do not fit together.
        """
        return ImageWork(self)

    def loaded(self, model: str) -> Any:
        """Returns the denoiser of that name. Raises InputError where nothing was given that loads it."""
        if self.open_model is None:
            raise InputError(f"nothing was given that loads {model}: give open_model")
        return self.open_model(model)

    def schema(self) -> Any:
        """Returns the columns of the results, a pyarrow schema; null where a question does not apply."""
        arrow = require("pyarrow", "audit")
        text, number = arrow.string(), arrow.float64()
        fields = [("row", arrow.int64()), ("path", text)]
        fields += [(name, text) for name in ("sidecar", "file", "pixels", "c2pa", "claimed_verdict")]
        fields += [("matches", arrow.bool_())]
        fields += [("made_by", text), ("made_by_probability", number), ("made_by_p_value", number)]
        fields += [("nearest_signature", text), ("signature_distance", number)]
        return arrow.schema(fields + [(name, text) for name in ("note", "model", "calibration")])


@dataclass(frozen=True)
class Picture:
    """An image in its row: what its sidecar says, its pixels (1, 3, H, W) if models are asked about them."""

    row: Row
    sidecar: Verification
    pixels: Tensor | None = None
    prompt: str | None = None
    note: str | None = None


class ImageWork:
    """Images under the models of a job."""

    def __init__(self, job: ImageJob):
        self.job = job
        self.calibration = None if job.calibration is None else load_calibration(job.calibration)
        self.library = [] if job.library is None else load_library(job.library)
        compared = job.model if self.library else None
        names = {name for name in (*job.candidates.values(), compared) if name is not None}
        loaded = {name: job.loaded(name) for name in names}
        self.pool = [Candidate(name, loaded[model], size=job.size) for name, model in job.candidates.items()]
        self.prober = None if compared is None else ImageModel("the model", loaded[compared], size=job.size)
        if self.calibration is not None:
            self.calibration.require(self.pool)
        self.prompted = self.calibration is not None and "prompt" in self.calibration.groups
        prints = sorted(model.fingerprint for model in loaded.values())
        digest = hashlib.sha256("\n".join(prints).encode()).hexdigest() if len(prints) > 1 else None
        self.about = About(
            digest or (prints[0] if prints else None),
            None if job.calibration is None else file_sha256(job.calibration)[:16],
            None if self.calibration is None else self.calibration.alpha,
            None,
        )

    # --- reading ---

    def prepare(self, rows: Sequence[Row]) -> tuple[list[Picture], list[Reject]]:
        """Verifies sidecars and decodes images; returns the pictures, and the rows that cannot be decoded."""
        read = [self._read(row) for row in rows]
        return [p for p in read if isinstance(p, Picture)], [p for p in read if isinstance(p, Reject)]

    def _read(self, row: Row) -> Picture | Reject:
        path = self.job.folder / row.value
        try:
            sidecar = verify(path, trust=self.job.trust)
            pixels, note = _decoded(path)
        except InputError as error:
            return reject(row, error)
        prompt = None
        if pixels is not None and self.prompted:
            try:
                prompt = caption_of(path)
            except InputError as error:
                pixels, note = None, str(error)
        needs_pixels = self.pool or self.prober
        return Picture(row, sidecar, pixels if needs_pixels else None, prompt, note if needs_pixels else None)

    # --- asking ---

    def measure(self, items: Sequence[Picture]) -> list[dict[str, Any]]:
        """Returns one record per image, in order."""
        records = [self._record(item) for item in items]
        shown = [(item, record) for item, record in zip(items, records, strict=True) if item.pixels is not None]
        if shown and self.pool:
            self._attribute(shown)
        if shown and self.prober is not None:
            self._compare(shown, self.prober)
        return records

    def _record(self, item: Picture) -> dict[str, Any]:
        verification, claims = item.sidecar, item.sidecar.claims or {}
        inside = verification.sidecar == "missing" and verification.embedded != "none"
        return {
            "row": item.row.row,
            "path": item.row.value,
            "sidecar": "in the image" if inside else verification.sidecar,
            "file": verification.file,
            "pixels": verification.pixels,
            "c2pa": verification.signature,
            "claimed_verdict": claims.get("verdict"),
            "matches": verification.matches,
            "note": item.note,
            "model": self.about.model,
            "calibration": self.about.calibration,
        }

    def _attribute(self, shown: list[tuple[Picture, dict[str, Any]]]) -> None:
        prompts = [item.prompt or "" for item, _ in shown] if self.prompted else None
        answers = attribute([item.pixels for item, _ in shown], self.pool, self.calibration, prompts=prompts)
        for answer, (_, record) in zip(answers, shown, strict=True):
            record["made_by"], record["made_by_p_value"] = answer.decision, answer.p_value
            record["made_by_probability"] = answer.probabilities.get(answer.decision)
            record["note"] = record["note"] or " ".join(answer.warnings) or None

    def _compare(self, shown: list[tuple[Picture, dict[str, Any]]], prober: ImageModel) -> None:
        plan, seed, compat = self.library[0].settings
        pixels = [item.pixels for item, _ in shown if item.pixels is not None]
        latents = torch.cat(prober.in_batches(pixels, prober.coder.encode_image))
        signatures = signature(prober.denoiser, latents, plan=plan, seed=seed, author_compat=compat)  # type: ignore[arg-type]
        distances = cosine_distance(signatures, torch.stack([entry.prototype for entry in self.library]))
        for row, (_, record) in zip(distances, shown, strict=True):
            record["nearest_signature"] = self.library[int(row.argmin())].name
            record["signature_distance"] = float(row.min())


def membership_of(job: ImageJob, images: Images, references: Path | None, out: Path) -> dict[str, Any] | None:
    """Tests whether the job's model was trained on some of the images, compared as a whole with references.

    Each image's number is kept in `out`, so that a test that was stopped goes on. The whole answer is written to
    membership.json there.

    Returns:
        What the test says of the images together, or the reason why it says nothing, as plain data; None without
        references or without a model.

    Raises:
        MissingPackage: scikit-learn or scipy is not installed.
    """
    if references is None or job.model is None:
        return None
    from ..membership import Store, membership_test

    suspects = [images.folder / name for name in images.files]
    try:
        kept = Store(out / STATISTICS)
        result = membership_test(job.loaded(job.model), suspects, references, size=job.size, store=kept)
    except (InputError, NotApplicable, NonFiniteError) as error:
        return {"verdict": None, "reason": str(error)}
    whole = result.to_dict()
    write_atomically(out / MEMBERSHIP, json.dumps(whole, indent=1).encode())
    together = {name: value for name, value in whole.items() if name not in ("suspects", "references")}
    counts = {f"{name}_measured": whole[name]["images"] for name in ("suspects", "references")}
    return {**together, **counts, "headline": result.headline(), "notes": result.notes()}


def _decoded(path: Path) -> tuple[Tensor | None, str | None]:
    """Pixels, or why models cannot be asked about a sound image. Raises InputError for a broken one."""
    try:
        return read_picture(path), None
    except InputError as error:
        try:
            pixels_of(read_image(path))
        except InputError:
            raise error from None
        return None, str(error)
