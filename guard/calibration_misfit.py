"""Why a calibration does not serve a model, in words that say what to do about it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from .denoiser import Denoiser
from .protocols import AdaptedDenoiser


class Binding(NamedTuple):
    """What a calibration is made for, or what it is wanted for now."""

    family: str
    dtype: str
    fingerprint: str
    latent_shape: tuple[int, ...]
    draws: int
    reference: str
    time: int | None = None


def binding_of(
    denoiser: Denoiser, shape: Sequence[int], draws: int, fingerprint: str | None = None, time: int | None = None
) -> Binding:
    """Returns what a model asks for now; its fingerprint may be given where it is known already.

    The timestep is that of the sampler's first step, where it matters: a calibration at another serves all the same.
    """
    return Binding(
        denoiser.family,
        str(denoiser.dtype),
        fingerprint or denoiser.fingerprint,
        tuple(shape),
        draws,
        denoiser.reference,
        time,
    )


def misfit(made: Binding, now: Binding, denoiser: Denoiser) -> str | None:
    """Returns what differs and how to fix it, to follow "this calibration is "; None if nothing does.

    Args:
        made: What the calibration is made for.
        now: What it is wanted for.
        denoiser: The model, which may tell what is loaded into it.
    """
    differing = differences(made, now)
    if not differing:
        return None
    said = {
        "family": f"for another model: of the family {made.family}, not {now.family}",
        "reference": f"for another reference: {made.reference}, not {now.reference}",
        "dtype": f"for another dtype: {_bare(made.dtype)}, not {_bare(now.dtype)}",
        "weights": "for another model: of the same family, but with other weights, such as another checkpoint, other "
        f"LoRAs or strengths, or patches{_loaded(denoiser)} ({made.fingerprint[:12]}, not {now.fingerprint[:12]})",
        "size": f"for another latent size: {_size(made)}, not {_size(now)}",
        "draws": f"for another number of draws: {made.draws}, not {now.draws}",
    }
    return f"{', and '.join(said[name] for name in differing)}; {_remedy(differing, made, now, denoiser)}"


def differences(made: Binding, now: Binding) -> list[str]:
    """Returns those of "family", "reference", "dtype", "weights", "size" and "draws" that differ.

    Another family explains all else; another dtype or reference, which are in the fingerprint, hide whether the weights
    differ, too.
    """
    if made.family != now.family:
        return ["family"]
    hidden = made.dtype != now.dtype or made.reference != now.reference
    same = {
        "reference": made.reference == now.reference,
        "dtype": made.dtype == now.dtype,
        "weights": made.fingerprint == now.fingerprint or hidden,
        "size": tuple(made.latent_shape) == tuple(now.latent_shape),
        "draws": made.draws == now.draws,
    }
    return [name for name, equal in same.items() if not equal]


def _remedy(differing: Sequence[str], made: Binding, now: Binding, denoiser: Denoiser) -> str:
    flags, arguments = [], []
    if differing == ["dtype"]:
        flags.append(f"--dtype {_bare(now.dtype)}")
    if "reference" in differing:
        flags.append(f"--reference {now.reference.replace(' ', '-')}")
    if "size" in differing:
        pixels = _pixels(now, denoiser)
        flags.append("--height {} --width {}".format(*pixels))
        arguments.append("height={}, width={}".format(*pixels))
    if "draws" in differing:
        flags.append(f"--draws {now.draws}")
        arguments.append(f"draws={now.draws}")
    command = " ".join(["cryptomnesia calibrate", *flags])
    make = f"calibrate this one: `{command}`, in Python guard.calibrate({', '.join(arguments)}), in ComfyUI the node "
    first = {
        "dtype": f"load the model in {_bare(made.dtype)} (--dtype {_bare(made.dtype)}), or ",
        "draws": f"use {made.draws} draws, or ",
        "reference": f"compare prompts by its reference (--reference {made.reference.replace(' ', '-')}), or ",
    }
    return f"{first.get(differing[0], '') if len(differing) == 1 else ''}{make}Calibrate Model"


def _bare(dtype: str) -> str:
    return dtype.removeprefix("torch.")


def _size(binding: Binding) -> str:
    return "x".join(map(str, binding.latent_shape))


def _pixels(now: Binding, denoiser: Denoiser) -> tuple[Any, Any]:
    return denoiser.pixels(now.latent_shape) or ("H", "W")


def _loaded(denoiser: Denoiser) -> str:
    names = denoiser.adapter_names if isinstance(denoiser, AdaptedDenoiser) else ()
    return f" (loaded now: {', '.join(names)})" if names else ""
