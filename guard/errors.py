"""The library's errors; all derive from CryptomnesiaError and say what is wrong, why, and how to fix it."""

from collections.abc import Sequence
from typing import Any, Protocol


class Checked(Protocol):
    """What an error tells of a checked image: the part of a MemorizationReport that it needs."""

    @property
    def prompt(self) -> str | None:
        """The prompt as it was given, or None where there is none."""
        ...

    @property
    def verdict(self) -> str:
        """The verdict, one of `report.Verdict`."""
        ...

    @property
    def score(self) -> float | None:
        """The score, higher = more likely memorized; None where nothing was measured."""
        ...

    @property
    def p_value(self) -> float | None:
        """The p-value in (0, 1], small = unlike benign prompts; None without a calibration."""
        ...

    @property
    def reason(self) -> str | None:
        """Why there is no verdict, or None where there is one."""
        ...

    @property
    def memorized(self) -> bool:
        """Whether the verdict is "memorized"."""
        ...

    @property
    def verified(self) -> bool:
        """Whether there is a verdict."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain values for JSON."""
        ...


class CryptomnesiaError(Exception):
    """Base of every error the library raises on purpose."""


class InputError(CryptomnesiaError, ValueError):
    """An argument or a file that cannot be used."""


class NotApplicable(CryptomnesiaError):
    """The question has no meaning for this model or this call, e.g. one that starts from an image."""


class CalibrationError(CryptomnesiaError):
    """A calibration that is malformed, or belongs to another model or other settings."""


class MemorizationBlocked(CryptomnesiaError):
    """The policy forbids to sample what is likely memorized. No step was taken.

    Attributes:
        reports: MemorizationReports, one per image of the call.
        report: The first that was flagged.
    """

    def __init__(self, reports: Sequence[Checked]):
        self.reports = list(reports)
        flagged = [report for report in self.reports if report.memorized]
        self.report: Checked | None = flagged[0]
        # without the prompt: messages end up in logs
        super().__init__(
            f"blocked before the first step: {len(flagged)} of {len(self.reports)} images would likely reproduce "
            f"training data (p = {flagged[0].p_value:.3g}): change the prompt, or choose the policy 'rewrite' or 'warn'"
        )


class UnverifiedBlocked(MemorizationBlocked):
    """An image could not be checked, and `unverified="block"` lets no such image out.

    Attributes:
        reports: MemorizationReports, one per image of the call; empty if the call went round the guard.
        report: The first without a verdict, or None.
    """

    def __init__(self, reports: Sequence[Checked], message: str):
        self.reports = list(reports)
        self.report = next((report for report in self.reports if not report.verified), None)
        CryptomnesiaError.__init__(self, message)


class MemorizationWarning(UserWarning):
    """An image was made although it likely reproduces training data, as the policy allows."""


class UnverifiedWarning(UserWarning):
    """An image was made that could not be checked, as `unverified="warn"` allows."""


class UnsignedWarning(UserWarning):
    """An image was marked without a signature, since there is no key: anyone can change what it says."""


class NonFiniteError(CryptomnesiaError):
    """The model answered with NaN or infinity; no verdict can be drawn from that."""


class OutOfMemory(CryptomnesiaError):
    """The device has no memory for that many rows."""


class SidecarError(CryptomnesiaError):
    """A provenance file, or the image it goes with, that cannot be written, read or signed."""


_PACKAGES = {  # named unlike their module
    "PIL": "pillow",
    "c2pa": "c2pa-python",
    "cv2": "opencv-python-headless",
    "iscc_lib": "iscc-lib",
    "huggingface_hub": "huggingface-hub",
    "sklearn": "scikit-learn",
}


class MissingPackage(CryptomnesiaError, ImportError):
    """An optional package is needed; the message says how to install it."""


def require(module: str, extra: str):
    """Imports an optional module.

    Args:
        module: The module's dotted name.
        extra: The extra of this package that brings it.

    Returns:
        The module.

    Raises:
        MissingPackage: It is not installed; the message names its package and the extra.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.split(".")[0]
        package = _PACKAGES.get(top, top)
        raise MissingPackage(
            f"this needs the package {package}: pip install {package}, or all of its kind with 'cryptomnesia[{extra}]'"
        ) from error
