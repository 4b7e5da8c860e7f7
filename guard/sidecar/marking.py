"""What a generated image says of itself inside its file: who provides the system, which one, when, under which id."""

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from .. import __version__
from ..errors import InputError
from ..image_codes import image_code
from .keys import setting
from .statement import Generation

Training = Literal["allowed", "notAllowed", "constrained"]
PROVIDER, TIME_AUTHORITY, TRAINING = "CRYPTOMNESIA_PROVIDER", "CRYPTOMNESIA_TIME_AUTHORITY", "CRYPTOMNESIA_TRAINING"
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
SOURCE_TYPES = (GENERATED, COMPOSITE)
_DATA_MINING = {
    "allowed": "http://ns.useplus.org/ldf/vocab/DMI-ALLOWED",
    "notAllowed": "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING",
    "constrained": "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-SEECONSTRAINT",
}
_MOST = 400  # characters of a field


@dataclass(frozen=True)
class Marking:
    """What is put into an image's file, beside what the statement says anyway.

    Attributes:
        provider: Who provides the system that made it: a person's or a firm's name. By default
            CRYPTOMNESIA_PROVIDER of the environment or of settings.json, else nobody is named.
        system: The system's name, by default the host and its models.
        system_version: Its version, by default the host's.
        training: Whether others may train on the image: the artist's choice, by default CRYPTOMNESIA_TRAINING, else
            nothing is said.
        parent: The image file that this one was made from, which becomes its parent with the manifest it may have.
        inpainted: Whether parts of the parent's picture are still in this one.
        parameters: Also write the text that A1111 writes and Civitai reads; only where prompts are told in plain.
        time_authority: http or https address of an RFC 3161 time authority that stamps the signature, by default
            CRYPTOMNESIA_TIME_AUTHORITY; without one nothing is asked over a network.

    Raises:
        InputError: A value that cannot be used.
    """

    provider: str | None = field(default_factory=lambda: setting(PROVIDER))
    system: str | None = None
    system_version: str | None = None
    training: Training | None = field(default_factory=lambda: setting(TRAINING))  # type: ignore[assignment]
    parent: str | Path | None = None
    inpainted: bool = False
    parameters: bool = False
    time_authority: str | None = field(default_factory=lambda: setting(TIME_AUTHORITY))

    def __post_init__(self) -> None:
        if self.training not in (None, *_DATA_MINING):
            raise InputError(f"training is one of {', '.join(_DATA_MINING)}, or None, not {self.training!r}")
        for name in ("provider", "system", "system_version"):
            value = getattr(self, name)
            if value is not None and (not value.strip() or len(value) > _MOST or not value.isprintable()):
                raise InputError(f"the {name} of a marking is a name of 1 to {_MOST} printable characters, or None")
        if self.inpainted and self.parent is None:
            raise InputError("an inpainted image has a parent: name the file that it was made from")
        if self.time_authority is not None:
            require_address(self.time_authority)


def require_address(address: str) -> None:
    """Raises InputError for what is no http or https address of a host."""
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        good = False
    if not good or not address.isprintable():
        raise InputError("a time authority is an http or https address, without a name or password in it")


def marking_of(embed: "Marking | bool | None") -> Marking | None:
    """Returns the marking that `embed` asks for: True for the usual one. Raises InputError for anything else."""
    if embed is None or embed is False:
        return None
    if embed is True:
        return Marking()
    if not isinstance(embed, Marking):
        raise InputError(f"embed is True, False or a Marking, not {type(embed).__name__}")
    return embed


def mark(marking: Marking, generation: Generation, image: Any, *, code: str | None = None) -> dict[str, Any]:
    """Returns the part of a statement that tells how the file is marked, as plain data.

    Args:
        marking: What was asked for.
        generation: How the image was made.
        image: The picture, as Pillow decodes it.
        code: Its image code, if it is known already.

    Returns:
        provider, system, system_version, content_id, source_type, training, image_code, parent.
    """
    host, _, version = generation.host.rpartition(" ")
    models = [str(model.get("name")) for model in generation.models if model.get("role") == "model"]
    parent = marking.parent
    return {
        "provider": marking.provider,
        "system": marking.system or ", ".join([host or generation.host, *models])[:_MOST],
        "system_version": marking.system_version or (version if host else __version__),
        "content_id": f"urn:uuid:{uuid.uuid4()}",
        "source_type": COMPOSITE if marking.inpainted else GENERATED,
        "training": marking.training,
        "image_code": image_code(image) if code is None else code,
        "parent": None if parent is None else Path(os.fspath(parent)).name.encode("utf-8", "replace").decode(),
    }


def properties(predicate: Mapping[str, Any]) -> dict[str, str | None]:
    """Returns what goes into the XMP of the image that a statement's predicate tells of, by name with prefix.

    The prompt is in it only where the statement tells it in plain; then it is the one that the model was given.
    """
    marked, prompt, generator = predicate["marking"], predicate["prompt"], predicate["generator"]
    used = prompt["rewritten"] or prompt["original"]
    return {
        "xmp:CreatorTool": f"{generator['name']} {generator['version']}",
        "xmp:CreateDate": predicate["created"],
        "Iptc4xmpExt:DigitalSourceType": marked["source_type"],
        "Iptc4xmpExt:AISystemUsed": marked["system"],
        "Iptc4xmpExt:AISystemVersionUsed": marked["system_version"],
        "Iptc4xmpExt:AIPromptInformation": used if prompt["mode"] == "plain" else None,
        "Iptc4xmpExt:DigImageGUID": marked["content_id"],
        "plus:DataMining": None if marked["training"] is None else _DATA_MINING[marked["training"]],
        "cryptomnesia:Provider": marked["provider"],
        "cryptomnesia:ImageCode": marked["image_code"],
        "cryptomnesia:Pixels": predicate["pixels"]["sha256"],
    }


def parameters_text(predicate: Mapping[str, Any]) -> str | None:
    """Returns the text that A1111 writes into its images, as far as the statement tells it; None without a prompt."""
    prompt = predicate["prompt"]
    used = prompt["rewritten"] or prompt["original"]
    if prompt["mode"] != "plain" or used is None:
        return None
    sampling = {str(key).lower(): value for key, value in predicate["sampling"].items()}
    pixels, models = predicate["pixels"], [one for one in predicate["models"] if one["role"] == "model"]
    named = {
        "Steps": _first(sampling, "steps", "num_inference_steps"),
        "Sampler": _first(sampling, "sampler", "sampler_name", "scheduler"),
        "CFG scale": _first(sampling, "cfg", "guidance_scale"),
        "Seed": predicate["seed"],
        "Size": f"{pixels['width']}x{pixels['height']}",
        "Model hash": models[0]["sha256"][:10] if models and models[0]["sha256"] else None,
        "Model": models[0]["name"] if models else None,
    }
    settings = ", ".join(f"{name}: {_plain(value)}" for name, value in named.items() if value is not None)
    lines = [used, f"Negative prompt: {prompt['negative']}" if prompt["negative"] else None, settings]
    return "\n".join(line for line in lines if line is not None)


def _first(settings: Mapping[str, Any], *names: str) -> Any:
    return next((settings[name] for name in names if settings.get(name) is not None), None)


def _plain(value: Any) -> str:
    text = str(value)
    return f'"{text}"' if "," in text or "\n" in text else text  # as A1111 quotes values
