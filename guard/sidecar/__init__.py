"""The provenance file beside an image: what made it, what the check said, and whether both are still as they were."""

from ..image_codes import image_code
from ..images import BUNDLE, c2pa_path, sidecar_path
from .bundle import verify_bundle, write_bundle
from .digests import Pixels, file_sha256, pixels_of, text_sha256
from .keys import Chain, Signer, config_folder, load_signer, new_chain
from .marking import Marking
from .owner import verify_evidence
from .privacy import UNKNOWN
from .reading import read_statement
from .statement import LIMIT, PREDICATE_TYPE, Generation, statement
from .store import Match, Store
from .verification import Checker, Verification, verify
from .writing import save, write_sidecar

__all__ = [
    "BUNDLE",
    "LIMIT",
    "PREDICATE_TYPE",
    "UNKNOWN",
    "Chain",
    "Checker",
    "Generation",
    "Marking",
    "Match",
    "Pixels",
    "Signer",
    "Store",
    "Verification",
    "c2pa_path",
    "config_folder",
    "file_sha256",
    "image_code",
    "load_signer",
    "new_chain",
    "pixels_of",
    "read_statement",
    "save",
    "sidecar_path",
    "statement",
    "text_sha256",
    "verify",
    "verify_bundle",
    "verify_evidence",
    "write_bundle",
    "write_sidecar",
]
