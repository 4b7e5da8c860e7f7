"""How often an invisible watermark is read back from changed copies, how often others seem to carry one, what it costs.

Two packages' classical methods, which need no trained weights and no network, are put to the pictures and changes of
`found_again`: tiles of 512x512. What is put in is an id of 128 bits and its CRC-32, which tells an id from noise. The
packages are no dependencies: install `invisible-watermark`, `blind-watermark` and `opencv-python-headless` for this.
"""

import contextlib
import importlib
import io
import time
import zlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.common import arguments, store, stored, table
from benchmarks.found_again import CHANGES, COUNT, saying, tiles

Pixels = NDArray[np.uint8]  # (H, W, 3), blue first, as OpenCV has them
BITS = 160  # of the id, and of its checksum
NEAR = 32  # wrong bits among them; coin tosses come so near one of 50 records less than once in 10^12 times


class Method(NamedTuple):
    """A watermark: `put` returns a picture with BITS in it, `get` the bits that a picture seems to have."""

    put: Callable[[Pixels, NDArray[np.uint8]], Pixels]
    get: Callable[[Pixels], NDArray[np.uint8]]


def invisible(name: str) -> Method:
    """A method of invisible-watermark."""
    library: Any = importlib.import_module("imwatermark")

    def put(picture: Pixels, bits: NDArray[np.uint8]) -> Pixels:
        encoder = library.WatermarkEncoder()
        encoder.set_watermark("bits", bits.tolist())
        return encoder.encode(picture, name)

    def get(picture: Pixels) -> NDArray[np.uint8]:
        return np.asarray(library.WatermarkDecoder("bits", BITS).decode(picture, name)).astype(np.uint8)

    return Method(put, get)


def blind() -> Method:
    """The method of blind-watermark, with its usual passwords."""
    library: Any = importlib.import_module("blind_watermark")

    def fresh() -> Any:
        with contextlib.redirect_stdout(io.StringIO()):  # it greets
            return library.WaterMark()

    def put(picture: Pixels, bits: NDArray[np.uint8]) -> Pixels:
        mark = fresh()
        mark.read_img(img=picture)
        mark.read_wm(bits.astype(bool), mode="bit")
        return np.round(mark.embed()).astype(np.uint8)

    def get(picture: Pixels) -> NDArray[np.uint8]:
        return np.asarray(fresh().extract(embed_img=picture, wm_shape=BITS, mode="bit")).astype(np.uint8)

    return Method(put, get)


def bits_of(identity: bytes) -> NDArray[np.uint8]:
    """The bits that are put in, (BITS,)."""
    return np.unpackbits(np.frombuffer(identity + zlib.crc32(identity).to_bytes(4, "big"), np.uint8))


def sound(bits: NDArray[np.uint8]) -> bool:
    """Whether the checksum fits, so that a reader would take them for an id."""
    data = np.packbits(bits).tobytes()
    return zlib.crc32(data[:16]).to_bytes(4, "big") == data[16:]


def noise_ratio(one: Pixels, other: Pixels) -> float:
    """Peak signal-to-noise ratio in decibels: higher is more alike."""
    error = float(np.mean((one.astype(float) - other) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def pixels(image: Image.Image) -> Pixels:
    return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])


def picture(values: Pixels) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(values[:, :, ::-1]))


def measured(
    method: Method, carriers: Sequence[Image.Image], strangers: Sequence[Image.Image], names: Sequence[str]
) -> dict[str, Any]:
    """How often the id is read by change, what the pictures lose, and what strangers seem to carry."""
    rng = np.random.default_rng(0)
    put = [bits_of(rng.bytes(16)) for _ in carriers]
    began = time.perf_counter()
    marked = [method.put(pixels(one), bits) for one, bits in zip(carriers, put, strict=True)]
    seconds = (time.perf_counter() - began) / len(carriers)
    ratios = [noise_ratio(pixels(one), other) for one, other in zip(carriers, marked, strict=True)]
    changes: dict[str, Any] = {}
    for name in names:
        got = [method.get(pixels(CHANGES[name](picture(one)))) for one in marked]
        wrong = np.array([(one != bits).sum() for one, bits in zip(got, put, strict=True)])
        changes[name] = {
            "read": float(np.mean(wrong == 0)),
            "near": float(np.mean(wrong <= NEAR)),
            "median_wrong_bits": float(np.median(wrong)),
        }
        print(f"{name}: {changes[name]}", flush=True)
    began = time.perf_counter()
    seen = [method.get(pixels(one)) for one in strangers]
    reading = (time.perf_counter() - began) / len(strangers)
    nearest = [min(int((one != bits).sum()) for bits in put) for one in seen]
    return {
        "changes": changes,
        "strangers_that_seem_to_carry_one": float(np.mean([sound(one) for one in seen])),
        "strangers_near_a_record": float(np.mean([far <= NEAR for far in nearest])),
        "strangers_nearest_wrong_bits": min(nearest),
        "noise_ratio_median": float(np.median(ratios)),
        "noise_ratio_least": min(ratios),
        "seconds_to_put": seconds,
        "seconds_to_read": reading,
    }


METHODS: dict[str, tuple[str, Callable[[], Method]]] = {
    "dwtDct": ("invisible-watermark", lambda: invisible("dwtDct")),
    "dwtDctSvd": ("invisible-watermark", lambda: invisible("dwtDctSvd")),
    "blind": ("blind-watermark", blind),
}


def spread(images: Sequence[Image.Image], most: int) -> Sequence[Image.Image]:
    """So many of them at most, from all over."""
    return images[:: max(1, -(-len(images) // most))]


def kept() -> dict[str, Any]:
    """What was stored of other methods."""
    try:
        return stored("watermark")["methods"]
    except FileNotFoundError:
        return {}


def main() -> None:
    asked = arguments(
        __doc__,
        pictures={"type": Path, "required": True, "help": "a folder of pictures, for the tiles"},
        methods={"nargs": "+", "choices": list(METHODS), "default": list(METHODS)},
        carriers={"type": int, "default": 50, "help": "how many tiles get a watermark at most"},
        changes={"nargs": "+", "choices": list(CHANGES), "default": list(CHANGES)},
        strangers={"type": int, "default": 1000, "help": "how many others are read at most"},
    )
    found = saying(tiles(asked.pictures))[: 2 * COUNT]
    half = len(found) // 2
    carriers, strangers = spread(found[:half], asked.carriers), spread(found[half:], asked.strangers)
    methods = {}
    for name in asked.methods:
        package, make = METHODS[name]
        of = measured(make(), carriers, strangers, asked.changes)
        versions = {one: version(one) for one in (package, "opencv-python-headless", "PyWavelets")}
        methods[name] = {"versions": versions, "carriers": len(carriers), "strangers": len(strangers), **of}
        print(f"\n{name}: { ({key: value for key, value in of.items() if key != 'changes'}) }")
        table(
            ["change", "read", "near", "wrong bits"],
            [[change, *values.values()] for change, values in of["changes"].items()],
        )
    store("watermark", {"bits": BITS, "near": NEAR, "methods": kept() | methods})


if __name__ == "__main__":
    main()
