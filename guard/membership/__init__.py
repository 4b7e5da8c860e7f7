"""Was a model trained on these images? A test of folders, and weak evidence for single images."""

from ..comparability import Comparability, comparability
from ..signals.membership_methods import METHODS
from .measure import Measured, Settings, measure
from .single import ImageEvidence, image_evidence
from .store import Store
from .test import CONFOUNDED, LIKELY, NO_EVIDENCE, MembershipTest, compare, membership_test

__all__ = [
    "CONFOUNDED",
    "LIKELY",
    "METHODS",
    "NO_EVIDENCE",
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
