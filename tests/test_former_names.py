"""Names that were public once still work, and mean what the new ones mean."""

import inspect

from cryptomnesia import Guard
from cryptomnesia.adapters import tokens
from cryptomnesia.condition import occlusion_saliency, span_drops
from cryptomnesia.false_discovery import rejected, standing
from cryptomnesia.localization.location import peak_mask, standing_out
from cryptomnesia.mitigation import mend as former
from cryptomnesia.mitigation import mitigate
from cryptomnesia.signals.guidance_similarity import guidance_similarity
from cryptomnesia.signals.recall import recall

from .helpers.guarded import flags_all
from .helpers.mended import mitigation
from .helpers.pipelines import build


def test_functions_keep_their_former_names() -> None:
    assert recall is guidance_similarity and standing is rejected and standing_out is peak_mask
    assert tokens.span_gradients is tokens.token_saliency and span_drops is occlusion_saliency
    assert former.mend is mitigate.mend is mitigate.mitigate and former.METHODS is mitigate.METHODS
    assert inspect.getattr_static(Guard, "mend") is inspect.getattr_static(Guard, "mitigate")


def test_a_guard_takes_its_fallback_by_both_names() -> None:
    pipe, calibration = build("sd1"), flags_all("sd1")
    for guard in (Guard(pipe, calibration, "embed", fallback="block"), Guard(pipe, calibration, otherwise="block")):
        assert guard._policy.fallback == "block"


def test_a_mitigation_stores_its_guidance_similarity_as_before() -> None:
    result = mitigation()
    assert result.guidance_similarity == result.recall == result.to_dict()["recall"]
