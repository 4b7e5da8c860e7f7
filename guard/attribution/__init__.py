"""Which model is this, and who made this image? Signatures of denoisers, and evidence for each candidate."""

from .attribute import Attribution, attribute
from .calibration_file import load_calibration, save_calibration
from .candidates import NONE, Candidate
from .combination import AttributionCalibration
from .identify import UNKNOWN, Identification, identify
from .learning import calibrate_attribution
from .library import Signatures, load_library

__all__ = [
    "NONE",
    "UNKNOWN",
    "Attribution",
    "AttributionCalibration",
    "Candidate",
    "Identification",
    "Signatures",
    "attribute",
    "calibrate_attribution",
    "identify",
    "load_calibration",
    "load_library",
    "save_calibration",
]
