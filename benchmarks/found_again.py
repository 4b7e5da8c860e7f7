"""How many changed copies a store finds again by their image codes, and how many strangers it takes for them.

Pictures: training pictures of the built-in model (64x64, made on the spot), and tiles of the pictures in a folder. Half
of the records are for choosing the distance, half for the report; strangers likewise. A change is made to the decoded
picture.
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
from cryptomnesia.image_codes import bits, codes_to_find, count
from cryptomnesia.images import SUFFIXES
from cryptomnesia.sidecar import Generation, Pixels, Store, image_code, statement
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
                yield tile


def coded(image: Image.Image) -> NDArray[np.uint64]:
    """The codes that an image is found by, (2, 4); the same twice where it has one."""
    codes = codes_to_find(image) or (image_code(image),)
    return np.stack([bits(codes[0]), bits(codes[-1])])


def saying(pictures: Iterator[Image.Image]) -> list[Image.Image]:
    """Those with a code that says something; the others are found by their pixels alone."""
    return [one for one in pictures if codes_to_find(one)]


def distances(codes: NDArray[np.uint64], records: NDArray[np.uint64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Of each image to each record, (N, R): in the first 64 bits and in all 256, of the nearest pair of codes."""
    coarse, fine = [], []
    for pair in codes:
        far = np.stack([count(records[:, of] ^ code) for code in pair for of in (0, 1)])  # (4, R, words)
        whole = far.sum(2)
        best = whole.argmin(0)
        rows = np.arange(len(records))
        coarse.append(far[best, rows, 0])
        fine.append(np.minimum(whole[best, rows], 255))
    return np.stack(coarse).astype(np.uint8), np.stack(fine).astype(np.uint8)


def measured(pictures: Sequence[Image.Image]) -> dict[str, Any]:
    """Distances of changed copies to their own record, whether another is nearer, and of strangers to all records."""
    half = len(pictures) // 2
    records = np.stack([coded(one) for one in pictures[:half]])
    own: dict[str, Any] = {}
    for name, change in CHANGES.items():
        began = time.perf_counter()
        coarse, fine = distances(np.stack([coded(change(one)) for one in pictures[:half]]), records)
        mine = np.diagonal(fine)
        own[name] = (np.diagonal(coarse).copy(), mine.copy(), mine <= fine.min(1))
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    strangers = np.stack([coded(one) for one in pictures[half:]])
    return {"own": own, "strangers": distances(strangers, records), "records": half}


def matches(coarse: NDArray[np.uint8], fine: NDArray[np.uint8], limits: tuple[int, int]) -> NDArray[np.bool_]:
    """Where both distances are within their limits."""
    return (coarse <= limits[0]) & (fine <= limits[1])


def halves(length: int) -> tuple[slice, slice]:
    """For choosing, and for the report."""
    return slice(0, length // 2), slice(length // 2, None)


def strangers_that_match(of: dict[str, Any], limits: tuple[int, int], part: int) -> float:
    """Share of the strangers of a half that match any record."""
    coarse, fine = (one[halves(len(one))[part]] for one in of["strangers"])
    return float(matches(coarse, fine, limits).any(1).mean())


def recall(of: dict[str, Any], limits: tuple[int, int], part: int) -> dict[str, float]:
    """Share of the copies of a half that match their own record, by change."""
    where = halves(of["records"])[part]
    return {name: float(matches(c[where], f[where], limits).mean()) for name, (c, f, _) in of["own"].items()}


def chosen_limits(groups: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """The limits that find most copies where at most RATE of all strangers match, on the halves for choosing."""
    best = (-1.0, (0, 0))
    counts = [len(of["strangers"][0][halves(len(of["strangers"][0]))[0]]) for of in groups]
    for coarse in range(2, 25):
        for fine in range(16, 101, 4):
            limits = (coarse, fine)
            rates = [strangers_that_match(of, limits, 0) for of in groups]
            if np.average(rates, weights=counts) <= RATE:
                found = float(np.mean([rate for of in groups for rate in recall(of, limits, 0).values()]))
                best = max(best, (found, limits), key=lambda one: one[0])
    return best[1]


def told(of: dict[str, Any], limits: tuple[int, int]) -> dict[str, Any]:
    """Recall by change and the false matches, on the half that nothing was chosen on."""
    where = halves(of["records"])[1]
    found = recall(of, limits, 1)
    return {
        "records": of["records"],
        "copies_of_each_change": of["records"] - of["records"] // 2,
        "strangers": len(of["strangers"][0]) - len(of["strangers"][0]) // 2,
        "strangers_that_match": strangers_that_match(of, limits, 1),
        "changes": {
            name: {
                "found": found[name],
                "found_and_nearest": float((matches(c[where], f[where], limits) & first[where]).mean()),
                "median_of_64": float(np.median(c[where])),
                "median_of_256": float(np.median(f[where])),
            }
            for name, (c, f, first) in of["own"].items()
        },
        "other_limits": {
            f"{coarse} of 64, {fine} of 256": {
                "strangers_that_match": strangers_that_match(of, (coarse, fine), 1),
                "found": recall(of, (coarse, fine), 1),
            }
            for coarse, fine in ((64, 24), (64, 40), (64, 56), (64, 72), (8, 255), (12, 64))
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
                    batch.append((said, [_code(rng)]))
                kept.add_all(batch)
            size = kept.path.stat().st_size
        seconds = []
        for _ in range(count_of):
            code = _code(rng)
            began = time.perf_counter()
            with Store.open(folder) as kept:
                kept.find([code], "f" * 64)
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
    groups = {"training pictures": saying(drawn())}
    if asked.pictures is not None:
        groups["tiles of pictures"] = saying(tiles(asked.pictures))[: 2 * COUNT]
    found = {name: measured(pictures) for name, pictures in groups.items()}
    limits = chosen_limits(list(found.values()))
    document["limits"] = {"of_64": limits[0], "of_256": limits[1]}
    for name, of in found.items():
        document["groups"][name] = told(of, limits)
        changes = document["groups"][name]["changes"]
        print(f"\n{name}: {limits}, strangers that match {document['groups'][name]['strangers_that_match']:.4f}")
        table(
            ["change", "found", "nearest", "of 64", "of 256"],
            [[change, *values.values()] for change, values in changes.items()],
        )
    if asked.rows:
        document["look_up"] = lookups(asked.rows)
        print(document["look_up"])
    store("found_again", document)


if __name__ == "__main__":
    main()
