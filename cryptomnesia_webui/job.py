"""What is known of one job and of its batches; it lies on the web UI's `p`, since one script object serves all jobs."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptomnesia import calibration_store
from cryptomnesia.attached.policy import Policy
from cryptomnesia.calibration_source import AUTO, NO_CALIBRATION, CalibrationSource
from cryptomnesia.report import MemorizationReport, Mitigation

from .choices import AUTOMATIC, NONE, Choices

ATTRIBUTE = "_cryptomnesia"
UNCALIBRATED = (
    "no calibration for the model as it is (checkpoint, LoRAs, size, clip skip and the like): press Calibrate the "
    "loaded model in the accordion Cryptomnesia"
)
NOT_CHOSEN = "no calibration was chosen: there is a score, but no verdict"


@dataclass
class Batch:
    """One batch of a job.

    Attributes:
        prompts, negatives, seeds: Of each image, as it was about to be sampled.
        reports: One per image; empty until it is judged.
        originals: The prompt as it was before it was rewritten, by the image's number.
        mitigations: What rewriting did, by the image's number.
        kept: The numbers of the images that go out; None until that is decided.
        saves: The user's own choice whether images are saved, while they are not; None where it stands.
        written: Numbers of images that have a provenance file.
    """

    prompts: list[str]
    negatives: list[str]
    seeds: list[int]
    reports: list[MemorizationReport] = field(default_factory=list)
    originals: dict[int, str] = field(default_factory=dict)
    mitigations: dict[int, Mitigation] = field(default_factory=dict)
    kept: list[int] | None = None
    saves: bool | None = None
    written: set[int] = field(default_factory=set)

    def told(self, image: int, report: MemorizationReport) -> MemorizationReport:
        """Returns a report on an image with its prompt, and with what rewriting did where that is of interest."""
        about = self.mitigations.get(image) or report.mitigation
        tried = about if about is not None and (about.held or report.memorized) else None
        reason = UNCALIBRATED if report.reason == NO_CALIBRATION else report.reason
        return replace(report, prompt=self.prompts[image], reason=reason, mitigation=tried)

    def original(self, image: int) -> str:
        """Returns the prompt of an image as its user wrote it."""
        return self.originals.get(image, self.prompts[image])


@dataclass
class Job:
    """One call of the web UI's process_images.

    Attributes:
        choices: What the user has chosen.
        policy: The same as the library has it.
        calibrations: Where the calibration comes from.
        problem: Why nothing of this job can be checked, or None.
        batches: By the batch's number.
        attachment: In SD.Next, the guard around the pipeline while a batch is sampled.
        unsigned: Whether it was said that images are marked without a signature.
    """

    choices: Choices
    policy: Policy
    calibrations: CalibrationSource
    problem: str | None = None
    batches: dict[int, Batch] = field(default_factory=dict)
    attachment: Any = None
    unsigned: bool = False

    @staticmethod
    def of(choices: Choices) -> "Job":
        """Begins a job. Raises CalibrationError where the calibration that was chosen cannot be read."""
        if choices.calibration == AUTOMATIC:
            source = CalibrationSource(AUTO)
        elif choices.calibration == NONE:
            source = CalibrationSource()
            source.why_none = NOT_CHOSEN
        else:
            named = Path(choices.calibration).expanduser()
            source = CalibrationSource(named if named.is_absolute() else calibration_store.folder() / named.name)
        return Job(choices, choices.as_policy(), source)

    @staticmethod
    def refused(problem: str) -> "Job":
        """Begins a job whose choices cannot be read: nothing of it goes out, since nobody knows what was wanted."""
        choices = Choices(policy="block", calibration=NONE, prompts="no file")
        return Job(choices, choices.as_policy(), CalibrationSource(), problem)

    def batch(self, p: Any, number: int) -> Batch:
        """Returns a batch, with what `p` says of it now where it is not known yet."""
        if number not in self.batches:
            self.batches[number] = Batch(list(p.prompts), list(p.negative_prompts), list(p.seeds))
        return self.batches[number]


def job_of(p: Any) -> Job | None:
    """Returns the job of a `p`; None where the guard is off."""
    return getattr(p, ATTRIBUTE, None)
