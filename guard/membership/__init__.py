"""Was a model trained on these images? A test of folders, and weak evidence for single images."""

from ..comparability import Comparability, comparability
from ..signals.membership_methods import METHODS
from .measure import Measured, measure
from .result import CONFOUNDED, GENERATED, LIKELY, NO_EVIDENCE, UNDECIDED, MembershipTest
from .settings import Settings
from .single import ImageEvidence, image_evidence
from .store import Store
from .test import compare, membership_test

__all__ = [
    "CONFOUNDED",
    "GENERATED",
    "LIKELY",
    "METHODS",
    "NO_EVIDENCE",
    "UNDECIDED",
    "Comparability",
    "ImageEvidence",
    "Measured",
    "MembershipTest",
    "Settings",
    "Store",
    "comparability",
    "compare",
    "image_evidence",
    "measure",
    "membership_test",
]
