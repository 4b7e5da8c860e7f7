"""Made-up reports and mitigations, for pages and views of them."""

from typing import Any

from cryptomnesia.mitigation.result import Mitigation, WordChange
from cryptomnesia.report import MemorizationReport


def report(prompt: str = "a red cat", verdict: Any = "memorized", **changes: Any) -> MemorizationReport:
    values: dict[str, Any] = {
        "prompt": prompt,
        "verdict": verdict,
        "score": 3.5,
        "iso": 1.0,
        "aniso": 0.1,
        "p_value": 0.008,
        "alpha": 0.01,
        "reason": None,
        "note": None,
        "seed": 0,
        "draws": 4,
        "forward_rows": 16,
        "fingerprint": "ab" * 32,
        "calibration_id": "cafe" * 4,
    }
    return MemorizationReport(**(values | changes))


def mitigation(
    method: Any = "rewrite",
    held: bool = True,
    original: str = "a red cat",
    rewritten: str | None = None,
    **changes: Any,
) -> Mitigation:
    """By default, "a red cat" with its middle word swapped, unless another text or method is given."""
    rewritten = rewritten or ("a blue cat" if method == "rewrite" and held else original)
    swap = WordChange("swap", "red", "blue", 0.625)
    values: dict[str, Any] = {
        "reason": None if held else "it did not hold on fresh noise",
        "words": [swap] if (original, rewritten) == ("a red cat", "a blue cat") else [],
        "score_before": 3.25,
        "score_after": 1.25 if held else 3.0,
        "p_before": 0.004,
        "p_after": 0.5 if held else 0.006,
        "recall": 0.03125 if held else 1.0,
        "similarity": 0.75,
        "forward_rows": 97,
        "backward_rows": 3,
    }
    return Mitigation(method, held, original=original, rewritten=rewritten, **(values | changes))
