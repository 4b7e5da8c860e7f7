"""The last lines of a report: with what, and how, the run was made."""

import json
from typing import Any

from .. import __version__
from ..calibration import Calibration


def facts(run: dict[str, Any], calibration: Calibration | None = None) -> list[tuple[str, str]]:
    """Returns the report's last lines as pairs (name, value), from the contents of run.json and the calibration."""
    lines = []
    if run.get("model"):
        lines.append(("model", f"fingerprint {run['model']}"))
    if calibration is not None:
        lines.append(
            ("calibration", f"{calibration.identity}: {calibration.n} benign prompts, made {calibration.created}")
        )
    elif run.get("calibration"):
        lines.append(("calibration", run["calibration"]))
    if run.get("draws"):
        rate = "" if run.get("alpha") is None else f", false-alarm rate {run['alpha']:g}"
        compared = f", prompts compared by: {run['reference']}" if run.get("reference") else ""
        lines.append(("check", f"{run['draws']} noise draws, seed {run.get('seed')}{rate}{compared}"))
    settings = run.get("settings") or {}
    shown = {name: value for name, value in settings.items() if value is not None and name != "seed"}
    lines.append(("settings", ", ".join(f"{name} {_plain(value)}" for name, value in shown.items()) or "the defaults"))
    lines.append(("started", str(run.get("started", ""))))
    lines.append(("made with", f"cryptomnesia {run.get('version', __version__)}"))
    return lines


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
