"""The last lines of a report: with what, and how, the run was made."""

import json
from typing import Any

from .. import __version__
from ..calibration import Calibration


def facts(run: dict[str, Any], calibration: Calibration | None = None) -> list[tuple[str, str]]:
    """Lines (name, value) from run.json."""
    found = []
    if run.get("model"):
        found.append(("model", f"fingerprint {run['model']}"))
    if calibration is not None:
        found.append(
            ("calibration", f"{calibration.identity}: {calibration.n} benign prompts, made {calibration.created}")
        )
    elif run.get("calibration"):
        found.append(("calibration", run["calibration"]))
    if run.get("draws"):
        rate = "" if run.get("alpha") is None else f", false-alarm rate {run['alpha']:g}"
        found.append(("check", f"{run['draws']} noise draws, seed {run.get('seed')}{rate}"))
    settings = run.get("settings") or {}
    shown = {name: value for name, value in settings.items() if value is not None and name != "seed"}
    found.append(("settings", ", ".join(f"{name} {_plain(value)}" for name, value in shown.items()) or "the defaults"))
    found.append(("started", str(run.get("started", ""))))
    found.append(("made with", f"cryptomnesia {run.get('version', __version__)}"))
    return found


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
