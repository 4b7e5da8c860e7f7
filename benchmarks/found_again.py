"""How many changed copies a store finds again by their image codes, and how many strangers it takes for them.

Pictures: training pictures of the built-in model (64x64, made on the spot), and tiles of the pictures in a folder. Half
of the records are for choosing the distance, half for the report; strangers likewise. A change is made to the decoded
picture, and the copy is encoded and decoded once more.
"""

import io
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from benchmarks.common import arguments, store, table
from cryptomnesia.demo.captions import captions
from cryptomnesia.images import SUFFIXES
from cryptomnesia.sidecar import Generation, Pixels, Store, image_code, statement
from cryptomnesia.sidecar.image_code import bits, count, says_nothing
from training.demo.records import Record, render

COUNT = 2000  # records, and as many strangers
TILE = 512
RATE = 0.001  # strangers that may match any record, on the half for choosing
Change = Callable[[Image.Image], Image.Image]


def encoded(kind: str, **options: Any) -> Change:
    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return Image.open(buffer).convert("RGB")

    return change


def resized(factor: float) -> Change:
    return lambda image: image.resize([max(8, round(side * factor)) for side in image.size], Image.Resampling.LANCZOS)


def cropped(share: float) -> Change:
    """Without that share of width and height, all of it at the right and below."""
    return lambda image: image.crop((0, 0, round(image.width * (1 - share)), round(image.height * (1 - share))))


def trimmed(share: float) -> Change:
    """Without that share of width and height, half of it at each side."""

    def change(image: Image.Image) -> Image.Image:
        x, y = round(image.width * share / 2), round(image.height * share / 2)
        return image.crop((x, y, image.width - x, image.height - y))

    return change


def screenshot(image: Image.Image) -> Image.Image:
    """On a page of one colour, scaled as a viewer does, with a JPEG's traces in the page."""
    shown = image.resize([round(side * 0.87) for side in image.size], Image.Resampling.BILINEAR)
    page = Image.new("RGB", (round(image.width * 1.3), round(image.height * 1.2)), (32, 33, 36))
    page.paste(shown, (round(image.width * 0.2), round(image.height * 0.15)))
    return encoded("JPEG", quality=85)(page)


def covered(image: Image.Image) -> Image.Image:
    """A tenth of the area under a grey patch."""
    changed = image.copy()
    side = [round(length * 0.1**0.5) for length in image.size]
    changed.paste((128, 128, 128), (0, 0, *side))
    return changed


CHANGES: dict[str, Change] = {
    "PNG again": encoded("PNG"),
    "JPEG 90": encoded("JPEG", quality=90),
    "JPEG 75": encoded("JPEG", quality=75),
    "JPEG 60": encoded("JPEG", quality=60),
    "WebP 80": encoded("WEBP", quality=80),
    "50 %": resized(0.5),
    "75 %": resized(0.75),
    "150 %": resized(1.5),
    "200 %": resized(2.0),
    "50 %, then JPEG 60": lambda image: encoded("JPEG", quality=60)(resized(0.5)(image)),
    "5 % cut off around": trimmed(0.05),
    "5 % cut off at two sides": cropped(0.05),
    "screenshot": screenshot,
    "brighter by 20 %": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "contrast 80 %": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "colour 50 %": lambda image: ImageEnhance.Color(image).enhance(0.5),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "turned by 2 degrees": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
    "a tenth covered": covered,
    "mirrored": ImageOps.mirror,
}


def drawn() -> Iterator[Image.Image]:
    """Training pictures: every one another drawing on another ground."""
    chosen = [caption for caption in captions() if caption.kind in ("verbatim", "control")]
    records = [
        Record(caption, number)
        for number in range(512)
        for caption in chosen
        if number == 0 or caption.kind == "control"
    ]
    random.Random(0).shuffle(records)
    for record in records[: 2 * COUNT]:
        yield render(record)


def tiles(folder: Path) -> Iterator[Image.Image]:
    """Tiles of 512x512 that say something, no two of one picture alike: in order, so that halves share no picture."""
    seen: list[NDArray[np.uint64]] = []
    for path in sorted(one for one in folder.rglob("*") if one.suffix.lower() in SUFFIXES and one.is_file()):
        with Image.open(path) as opened:
            if min(opened.size) < TILE:
                continue
            opened.draft("RGB", (2560, 2560))
            picture = opened.convert("RGB")
        picture.thumbnail((2560, 2560))
        whole = bits(image_code(picture))
        if any(count(whole ^ other).sum() < 64 for other in seen):  # the same picture in another size
            continue
        seen.append(whole)
        for top in range(0, picture.height - TILE + 1, TILE):
            for left in range(0, picture.width - TILE + 1, TILE):
                tile = picture.crop((left, top, left + TILE, top + TILE))
                if not says_nothing(tile):
                    yield tile


def coded(image: Image.Image) -> NDArray[np.uint64]:
    return bits(image_code(image))


def measured(pictures: Sequence[Image.Image]) -> dict[str, Any]:
    """Distances: of changed copies to their own record and to the nearest other, and of strangers to the nearest."""
    half = len(pictures) // 2
    records = np.stack([coded(one) for one in pictures[:half]])
    strangers = np.stack([coded(one) for one in pictures[half:]])
    own: dict[str, NDArray[np.int64]] = {}
    first: dict[str, NDArray[np.bool_]] = {}
    for name, change in CHANGES.items():
        began = time.perf_counter()
        codes = np.stack([coded(encoded("PNG")(change(one))) for one in pictures[:half]])
        far = np.stack([count(records ^ code).sum(1) for code in codes])
        own[name] = np.diagonal(far).copy()
        first[name] = own[name] <= far.min(1)
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    nearest = np.array([count(records ^ code).sum(1).min() for code in strangers])
    return {"own": own, "first": first, "nearest": nearest, "records": half, "strangers": len(pictures) - half}


def chosen_distance(nearest: NDArray[np.int64]) -> int:
    """The largest distance at which at most RATE of these strangers match any record."""
    return max((limit for limit in range(128) if (nearest <= limit).mean() <= RATE), default=0)


def told(of: dict[str, Any], limit: int) -> dict[str, Any]:
    """Recall by change and the false matches, on the half that nothing was chosen on."""
    report = slice(of["records"] // 2, None)
    stranger = slice(of["strangers"] // 2, None)
    return {
        "records": of["records"],
        "strangers": len(of["nearest"][stranger]),
        "limit": limit,
        "strangers_that_match": float((of["nearest"][stranger] <= limit).mean()),
        "changes": {
            name: {
                "found": float((far[report] <= limit).mean()),
                "found_and_nearest": float(((far[report] <= limit) & of["first"][name][report]).mean()),
                "median_distance": float(np.median(far[report])),
                "largest_of_95_percent": float(np.quantile(far[report], 0.95)),
            }
            for name, far in of["own"].items()
        },
        "by_limit": {
            str(one): {
                "strangers_that_match": float((of["nearest"][stranger] <= one).mean()),
                "found": {name: float((far[report] <= one).mean()) for name, far in of["own"].items()},
            }
            for one in (0, 8, 16, 24, 32, 40, 48, 56, 64)
        },
    }


def lookups(rows: int, count_of: int = 20) -> dict[str, Any]:
    """How long a look-up takes in a store of so many rows, with random codes and short statements."""
    rng = np.random.default_rng(0)
    generation = Generation(host="benchmark 1")
    document = statement("a.png", "0" * 64, Pixels("0" * 64, "RGB", 1, 1), None, generation)
    with tempfile.TemporaryDirectory() as folder:
        with Store.open(folder, make=True) as kept:
            for start in range(0, rows, 10_000):
                batch = []
                for number in range(start, min(rows, start + 10_000)):
                    said = document | {"subject": [{"name": "a.png", "digest": {"sha256": f"{number:064x}"}}]}
                    batch.append((said, _code(rng), True))
                kept.add_all(batch)
            size = kept.path.stat().st_size
        seconds = []
        for _ in range(count_of):
            code = _code(rng)
            began = time.perf_counter()
            with Store.open(folder) as kept:
                kept.find(code, "f" * 64)
            seconds.append(time.perf_counter() - began)
    return {"rows": rows, "bytes": size, "seconds_median": float(np.median(seconds)), "seconds_most": max(seconds)}


def _code(rng: np.random.Generator) -> str:
    import base64

    return "ISCC:" + base64.b32encode(b"\x21\x07" + rng.bytes(32)).decode().rstrip("=")


def main() -> None:
    asked = arguments(
        __doc__,
        pictures={"type": Path, "help": "a folder of pictures, for the tiles"},
        rows={"type": int, "default": 0, "help": "rows of a store whose look-ups are timed"},
    )
    document: dict[str, Any] = {"rate_for_choosing": RATE, "groups": {}}
    groups = {"training pictures": list(drawn())}
    if asked.pictures is not None:
        groups["tiles of pictures"] = list(tiles(asked.pictures))[: 2 * COUNT]
    found = {name: measured(pictures) for name, pictures in groups.items()}
    dev = np.concatenate([of["nearest"][: of["strangers"] // 2] for of in found.values()])
    limit = chosen_distance(dev)
    for name, of in found.items():
        document["groups"][name] = told(of, limit)
        changes = document["groups"][name]["changes"]
        print(f"\n{name}: limit {limit}, strangers that match {document['groups'][name]['strangers_that_match']:.4f}")
        table(
            ["change", "found", "nearest", "median"],
            [[c, v["found"], v["found_and_nearest"], v["median_distance"]] for c, v in changes.items()],
        )
    if asked.rows:
        document["look_up"] = lookups(asked.rows)
        print(document["look_up"])
    store("found_again", document)


if __name__ == "__main__":
    main()
