"""What a node shows on itself: short plain data that web/js draws as a badge and as lines below the widgets.

ComfyUI keeps it with the run (/history) and joins it over lists: several entries are several prompts.
"""

from collections.abc import Iterable
from typing import Any

KEY = "cryptomnesia"
# what a badge can say; web/js/badges.js has a colour and words for each
STATES = (
    "memorized",
    "clear",
    "uncalibrated",
    "not applicable",
    "stopped",
    "passed",
    "off",
    "calibrated",
    "seed",
    "vouched for",
    "nobody vouches",
    "found again",
    "changed",
    "cannot tell",
    "table",
)


def state(name: str, **facts: Any) -> dict[str, Any]:
    """Returns the entry of a state; facts are numbers and texts, which are shown as text and never as HTML."""
    if name not in STATES:
        raise ValueError(f"no state of a node: {name}")
    return {"state": name, **facts}


def verdict(report: dict[str, Any] | None, **facts: Any) -> dict[str, Any]:
    """Returns the entry of a report: its verdict and numbers, why there is none, and what was changed."""
    if report is None:
        return state("off", **facts)
    entry = {name: report.get(name) for name in ("p_value", "alpha", "score", "reason", "note")}
    about = report.get("mitigation")
    if about is not None:
        entry["mitigation"] = {
            name: about[name] for name in ("method", "held", "reason", "original", "rewritten", "p_before", "p_after")
        }
    return state(report["verdict"], **entry, **facts)


def on_node(entries: dict[str, Any] | Iterable[dict[str, Any]], *texts: str) -> dict[str, Any]:
    """Returns what a node hands to ComfyUI as its `ui`: entries for its badge, and texts as other nodes show them."""
    listed = [entries] if isinstance(entries, dict) else list(entries)
    return {KEY: listed, **({"text": list(texts)} if texts else {})}
