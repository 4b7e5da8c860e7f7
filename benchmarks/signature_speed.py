"""What a spectral signature costs: `python -m benchmarks.signature_speed`. Paired ratios within one run, with spread.

The authors ask about one row at a time; ours share calls. Both do the same work on the same noise, and their numbers
are compared.
"""

from typing import Any

import torch

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.demo import load_demo
from cryptomnesia.signals.spectral import rows_per_image, signature

from .common import arguments, store
from .speed import paired


def on_device(device: str, rounds: int) -> dict[str, Any]:
    """One image and a batch of images against one-row calls."""
    denoiser: Any = to_denoiser(load_demo().to(device))
    latents = torch.randn(4, *denoiser.latent_shape(), generator=torch.Generator().manual_seed(0))
    result = {}
    for name, z in (("one image", latents[:1]), ("per image of four", latents)):
        row = paired(
            lambda z=z: signature(denoiser, z, plan="1step"),
            lambda z=z: signature(denoiser, z, plan="1step", batch_rows=1),
            rounds,
        )
        result[name] = {**row, "rows_per_image": rows_per_image("1step")}
    whole = signature(denoiser, latents[:1], plan="1step")
    apart = (whole - signature(denoiser, latents[:1], plan="1step", batch_rows=1)).abs().max()
    return {**result, "largest_difference": float(apart)}


def main() -> None:
    options = arguments(__doc__, rounds={"type": int, "default": 7})
    torch.set_grad_enabled(False)
    document: dict[str, Any] = {"rounds": options.rounds, "plan": "1step"}
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        document[device] = on_device(device, options.rounds)
        for name in ("one image", "per image of four"):
            row = document[device][name]
            print(f"{device}: {name}: {row['ratio']:.3f} of the time of one-row calls, spread {row['spread']}")
        print(f"largest difference of any number: {document[device]['largest_difference']:.1e}")
    store("signature_speed", document)


if __name__ == "__main__":
    main()
