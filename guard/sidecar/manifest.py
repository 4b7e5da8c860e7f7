"""The C2PA manifest that goes into an image's file: who made it with what, in the words of that standard and others.

References: C2PA Technical Specification 2.4 (actions, AI disclosure, soft binding, ingredients); CAWG Metadata and
Training and Data Mining 1.1; IPTC Photo Metadata Standard 2025.1.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..image_codes import ALGORITHM, unit
from .marking import COMPOSITE, properties
from .xmp import IPTC

LABEL = "org.cryptomnesia.predicate"
_TRAINING = (
    "cawg.ai_generative_training",
    "cawg.ai_training",
    "cawg.ai_inference",
    "cawg.data_mining",
)
_TYPES = {"model": "c2pa.types.model", "vae": "c2pa.types.model", "text encoder": "c2pa.types.model"}
_PARENT = "parent"


@dataclass(frozen=True)
class Parent:
    """The file that an image was made from: its name, bytes and media type."""

    name: str
    data: bytes
    media_type: str


@dataclass(frozen=True)
class Ingredient:
    """What went into an image: how C2PA describes it, and the bytes that are looked at, with their type."""

    description: dict[str, Any]
    media_type: str
    data: bytes


def digest(predicate: Mapping[str, Any]) -> str:
    """Returns the SHA-256, in hex, of what a predicate says, whatever the layout of its file."""
    text = json.dumps(predicate, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def manifest(name: str, media_type: str, statement: Mapping[str, Any], parent: Parent | None) -> dict[str, Any]:
    """Returns the definition of a manifest for an image.

    Args:
        name: The image's file name.
        media_type: Its media type.
        statement: The statement about it, with a marking. Of it the predicate is signed: the digest of the file that
            the subject tells cannot lie in the file itself, which C2PA's own hard binding covers.
        parent: The file that it was made from, if any.
    """
    predicate = statement["predicate"]
    marked = predicate["marking"]
    data = {"predicateType": statement["predicateType"], "sha256": digest(predicate), "predicate": predicate}
    assertions = [
        {"label": "c2pa.actions.v2", "created": True, "data": {"actions": _actions(predicate, parent)}},
        {"label": "c2pa.ai-disclosure", "created": True, "data": _disclosure(predicate)},
        {"label": "c2pa.soft-binding", "created": True, "data": _soft_binding(marked["image_code"])},
        {"label": "cawg.metadata", "kind": "Json", "data": _metadata(predicate)},
        {"label": LABEL, "kind": "Json", "created": True, "data": data},  # JSON: nothing in it changes its type
    ]
    if marked["training"] is not None:
        entries = {entry: {"use": marked["training"]} for entry in _TRAINING}
        assertions.append({"label": "cawg.training-mining", "data": {"entries": entries}})
    return {
        "claim_generator_info": [{"name": "cryptomnesia", "version": __version__}],
        "format": media_type,
        "title": name,
        "instance_id": marked["content_id"],
        "assertions": assertions,
    }


def ingredients(predicate: Mapping[str, Any], parent: Parent | None) -> list[Ingredient]:
    """Returns the parent, if any, with the manifest in it, and the models: these by name and digest, never by bytes."""
    found = []
    if parent is not None:
        description = {"title": parent.name, "format": parent.media_type, "relationship": "parentOf", "label": _PARENT}
        found.append(Ingredient(description, parent.media_type, parent.data))
    for number, model in enumerate(predicate["models"]):
        digests = {key: model[key] for key in ("sha256", "fingerprint") if model.get(key)}
        strength = "" if model.get("strength") is None else f", strength {model['strength']}"
        known = "".join(f", {key}:{value}" for key, value in digests.items())
        description = {
            "title": model["name"],
            "format": "application/octet-stream",
            "relationship": "inputTo",
            "label": _label(number),
            "description": f"{model['role']}{strength}{known}",
            "data_types": [{"type": _TYPES.get(model["role"], "c2pa.types.model")}],
        }
        if model.get("uri"):
            description["informational_URI"] = model["uri"]
        # the weights stay where they are: what stands in for them is not kept either
        found.append(
            Ingredient(description, "application/octet-stream", model["name"].encode("utf-8", "replace") or b"-")
        )
    return found


def _label(number: int) -> str:
    return f"model {number}"


def _actions(predicate: Mapping[str, Any], parent: Parent | None) -> list[dict[str, Any]]:
    marked = predicate["marking"]
    models = [_label(number) for number in range(len(predicate["models"]))]
    made = {
        "action": "c2pa.created" if parent is None else "c2pa.edited",
        "when": predicate["created"],
        "softwareAgent": {"name": marked["system"], "version": marked["system_version"]},
        "digitalSourceType": marked["source_type"],
        "description": "inpainted by a diffusion model" if marked["source_type"] == COMPOSITE else "generated",
        "parameters": {"ingredientIds": models},
    }
    if not models:
        del made["parameters"]
    if parent is None:
        return [made]
    return [{"action": "c2pa.opened", "parameters": {"ingredientIds": [_PARENT]}}, made]


def _disclosure(predicate: Mapping[str, Any]) -> dict[str, Any]:
    """C2PA's AI disclosure: which model, and that nobody has said to have approved the result."""
    model = next((one for one in predicate["models"] if one["role"] == "model"), None)
    named: dict[str, Any] = {
        "modelType": "c2pa.types.model",
        "contentProfile": {"humanOversightLevel": "prompt_guided"},
    }
    if model is not None:
        named["modelName"] = model["name"]
        identifier = model.get("uri") or (
            f"sha256:{model['sha256']}" if model.get("sha256") else model.get("fingerprint")
        )
        if identifier:
            named["modelIdentifier"] = identifier
    return named


def _soft_binding(code: str) -> dict[str, Any]:
    return {"alg": ALGORITHM, "blocks": [{"scope": {}, "value": list(unit(code))}]}  # numbers become bytes


def _metadata(predicate: Mapping[str, Any]) -> dict[str, Any]:
    """The IPTC terms of the XMP, as linked data."""
    said = {name: value for name, value in properties(predicate).items() if value and name.startswith("Iptc4xmpExt:")}
    return {"@context": {"Iptc4xmpExt": IPTC}, **said}
