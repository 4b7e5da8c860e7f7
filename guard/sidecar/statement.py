"""What the sidecar says: an in-toto Statement v1 about one image, as plain JSON data.

Reference: in-toto Attestation Framework, https://github.com/in-toto/attestation, spec/v1/statement.md.
"""

import datetime
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import __version__
from ..errors import InputError, SidecarError
from .checks import check_of, limitations
from .digests import Pixels
from .findings import finding_of, limits
from .privacy import Privacy, Prompts
from .values import plain

LIMIT = 10 << 20  # bytes; no larger sidecar is written or read
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:cryptomnesia:provenance:1"
ROLES = ("model", "lora", "vae", "text encoder", "controlnet", "other")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Generation:
    """How an image was made.

    Attributes:
        host: What ran the model, with its version, e.g. "ComfyUI 0.30.0".
        models: Mappings with `role` ("model", "lora", "vae", "text encoder", "controlnet" or "other") and `name`, and,
            where known, `sha256` of the file, `fingerprint` of the loaded weights, `strength`, and `uri`, a package
            URL (purl) or AIR identifier.
        sampling: Settings by name, e.g. steps, cfg, sampler, scheduler, denoise: numbers, strings or booleans.
        seed: Seed of the image's noise; as with texts and settings, UNKNOWN where there is one that nobody can tell.
        prompt: The prompt as the user wrote it; by default that of the report.
        negative: The negative prompt.
    """

    host: str
    models: Sequence[Mapping[str, Any]] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    seed: int | str | None = None
    prompt: str | None = None
    negative: str | None = None


def statement(
    name: str,
    sha256: str,
    pixels: Pixels,
    report: Any,
    generation: Generation,
    *,
    prompts: Prompts = "plain",
    evidence: Sequence[Mapping[str, str]] = (),
    findings: Iterable[Any] = (),
    calibration: Any = None,
    marking: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Builds the statement about one image.

    Args:
        name, sha256, pixels: File name and digests of the image.
        report: A MemorizationReport, the dict that its to_dict gave, or None if nothing was checked.
        generation: How the image was made.
        prompts: "plain": texts as they are; "hash": their SHA-256, which hides no short prompt from who guesses it,
            and no word changes; "none": nothing of them. Where a setting or a reason quotes a prompt that is to be
            hidden, it is withheld. The image's file name and the models' names are kept.
        evidence: Files beside the image, each with kind, name and sha256.
        findings: Further findings about the image; see `findings.KINDS`.
        calibration: The calibration of the check, for the score threshold and the number of benign prompts.
        marking: What the image's file says of itself, as `marking.mark` gives it; None where nothing is put into it.

    Returns:
        Plain JSON data that fits schema.json.

    Raises:
        InputError: An unknown mode, role or kind, a digest that is none, or values that JSON cannot hold.
        SidecarError: The calibration is not the one of the report.
    """
    report = report.to_dict() if hasattr(report, "to_dict") else report
    mitigation = (report or {}).get("mitigation") or {}
    texts = _texts(report or {}, mitigation, generation)
    known = [*texts.values(), (report or {}).get("prompt"), mitigation.get("original"), mitigation.get("rewritten")]
    privacy = Privacy.of(prompts, known)
    entries = [finding_of(finding) for finding in findings]
    predicate = {
        "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "generator": {"name": "cryptomnesia", "version": __version__, "host": generation.host},
        "pixels": {"sha256": pixels.sha256, "mode": pixels.mode, "width": pixels.width, "height": pixels.height},
        "models": [_model(model) for model in generation.models],
        "sampling": {key: privacy.quoted(_setting(key, value)) for key, value in generation.sampling.items()},
        "seed": None if generation.seed is None else str(generation.seed),
        "prompt": {"mode": prompts, **{key: privacy.text(text) for key, text in texts.items()}},
        "check": None if report is None else check_of(report, privacy, calibration),
        "limitations": [*limitations(report), *limits(entries)],
        "evidence": [dict(entry) for entry in evidence],
        **({"findings": entries} if entries else {}),
        **({} if marking is None else {"marking": dict(marking)}),
    }
    subject = [{"name": name, "digest": {"sha256": sha256}}]
    document = {"_type": STATEMENT_TYPE, "subject": subject, "predicateType": PREDICATE_TYPE, "predicate": predicate}
    return plain(document)


def _texts(report: Mapping[str, Any], mitigation: Mapping[str, Any], generation: Generation) -> dict[str, str | None]:
    original = report.get("prompt") if generation.prompt is None else generation.prompt
    rewritten = mitigation.get("rewritten") if mitigation.get("held") else None
    return {
        "original": original,
        "rewritten": None if rewritten == mitigation.get("original") else rewritten,
        "negative": generation.negative,
    }


def _setting(key: Any, value: Any) -> Any:
    """Numbers, strings, booleans and None stay; everything else becomes text."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()  # a number of numpy or torch
    if str(key).lower().endswith("seed") and isinstance(value, int):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _model(model: Mapping[str, Any]) -> dict[str, Any]:
    entry = {"role": model.get("role"), "name": model.get("name"), "sha256": model.get("sha256")}
    if entry["role"] not in ROLES:
        raise InputError(f"the role of a model is one of {', '.join(ROLES)}, not {entry['role']!r}")
    if not isinstance(entry["name"], str):
        raise InputError("every model in `models` needs a name")
    if entry["sha256"] is not None and not _SHA256.fullmatch(str(entry["sha256"])):
        raise InputError(f"the sha256 of the model {entry['name']!r} is not 64 hex digits in lower case")
    return entry | {key: model[key] for key in ("fingerprint", "strength", "uri") if model.get(key) is not None}


def encoded(document: Mapping[str, Any]) -> bytes:
    """Returns the bytes of the sidecar file. Raises SidecarError if they are more than `LIMIT`."""
    data = (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    if len(data) > LIMIT:
        raise SidecarError(f"the sidecar would have {len(data) >> 20} MiB, more than {LIMIT >> 20}: shorten the prompt")
    return data


def digest(document: Mapping[str, Any]) -> str:
    """Returns the SHA-256, in hex, of what a statement says, whatever the layout of its file."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
