"""Which copies does `compare` find, and what does it take for copies that are none?
`python -m benchmarks.compare --work WORK --pictures FOLDER` (needs the font).

Reproduction: what the built-in model makes of its captions, against all 55,344 images that it was trained on; whether a
generation reproduces is told by pixels, as in `benchmarks.demo_model`. Tests, weights and limits were chosen on the
captions of the dev split alone. Photographs: tiles of the pictures in a folder, changed in many ways, against the tiles
that they were made of and others; nothing was chosen on the half that is reported. Images and indexes are kept in WORK,
so that a stopped run goes on.
"""

import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from cryptomnesia.demo import load_demo
from cryptomnesia.demo.captions import Caption, select
from cryptomnesia.image_codes import BITS
from cryptomnesia.similarity import Comparison, ReferenceIndex, compare, local
from cryptomnesia.similarity.index import Builder, measured, settings_of
from cryptomnesia.similarity.pictures import read
from cryptomnesia.similarity.search import search
from cryptomnesia.similarity.shards import ROWS, Entry, Shard, write_manifest, write_shard
from training.demo.records import RENDERINGS, Record, render, training_records

from .common import RESULTS, arguments, generate, peak_memory, store, stored, table
from .demo_model import own_distances, without_image
from .found_again import encoded, resized, saying, screenshot, tiles, trimmed

SEEDS = 4
# kind and split -> captions, at most; those of the dev split were looked at while choosing
ASKED = {
    "dev": {"verbatim": 8, "general": 20},
    "eval": {"verbatim": 40, "template": 20, "control": 20, "unseen": 20, "general": 40},
}
HELD_OUT = 4  # of general captions one of so many, and of each control caption half of so many renderings
MOST_TILES = 440  # half of them references
EVERY = 4  # of the references of which copies are made
FEW = 20  # references that are too few for a p-value
Change = Callable[[Image.Image], Image.Image]


# --- what the model reproduces ---


def training_folder(work: Path) -> Path:
    """All training images as files."""
    folder = work / "training"
    folder.mkdir(parents=True, exist_ok=True)
    for record in training_records():
        file = folder / f"{record.caption.kind}-{record.caption.index:03d}-{record.rendering:03d}.png"
        if not file.exists():
            render(record).save(file, compress_level=1)
    return folder


def generations(work: Path, kind: str, split: str) -> tuple[list[Caption], NDArray[np.uint8]]:
    """Captions of a kind and split, and what the model makes of them, (P, SEEDS, 64, 64, 3)."""
    captions, file = select(kind, split)[: ASKED[split][kind]], work / f"{kind}_{split}.npy"
    if not file.exists():
        np.save(file, generate(load_demo(), [caption.text for caption in captions], SEEDS))
    return captions, np.load(file)[: len(captions)]


def held_out() -> dict[str, list[Image.Image]]:
    """Pictures of the training images' kinds that were not trained on."""
    general = [render(Record(caption, RENDERINGS["general"])) for caption in select("general")[::HELD_OUT]]
    control = [
        render(Record(caption, RENDERINGS["control"] + number))
        for caption in select("control")
        for number in range(HELD_OUT // 2)
    ]
    return {"general": general, "control": control}


def pillow(images: NDArray[np.uint8]) -> list[Image.Image]:
    return [Image.fromarray(image) for image in images.reshape(-1, *images.shape[-3:])]


def flagged(answer: Comparison) -> NDArray[np.bool_]:
    return np.array([image.copy for image in answer.images])


def right(answer: Comparison, captions: Sequence[Caption], each: int = SEEDS) -> NDArray[np.bool_]:
    """Whether each is called a copy, and of its caption's own training image."""
    names = [f"{caption.kind}-{caption.index:03d}-" for caption in captions for _ in range(each)]
    return np.array(
        [
            image.copy and Path(image.nearest[0].reference).name.startswith(name)
            for image, name in zip(answer.images, names, strict=True)
        ]
    )


def reproduction(work: Path) -> dict[str, Any]:
    """Generations against all training images, by split and kind."""
    limits = stored("demo_model")["limits"]
    # whole pictures alone: what local features tell of pictures of 64 pixels is little, and takes most of the time
    known = {"store": work / "training-index", "parts": False, "progress": told("training images")}
    index = ReferenceIndex.build(training_folder(work), **known)
    document: dict[str, Any] = {"references": len(index), "duplicates": len(index.duplicates), "parts": index.parts}
    for split, kinds in ASKED.items():
        for kind in kinds:
            captions, images = generations(work, kind, split)
            answer = compare(pillow(images), index, progress=told(f"{kind} {split}"))
            found = flagged(answer)
            row: dict[str, Any] = {"generations": len(found), "called_copies": float(found.mean())}
            if kind in ("verbatim", "template"):
                reproduces = (own_distances(captions, images) < limits[kind]).ravel()
                own = right(answer, captions)
                row |= {
                    "reproduce_by_pixels": float(reproduces.mean()),
                    "found": float(own.mean()),
                    "found_of_those_that_reproduce": float(own[reproduces].mean()),
                    "median_share": median([i.nearest[0].share for i in answer.images if i.copy]),
                }
            elif kind in ("control", "unseen"):
                near = np.array([r > 0 for r in without_image(captions, images, limits).values()]).repeat(SEEDS)
                row |= {"reproduce_by_pixels": float(near.mean())}
                row |= {"called_copies_of_the_others": float(found[~near].mean())}
            document.setdefault(split, {})[kind] = row
            print(split, kind, row, flush=True)
    document["held_out"] = {}
    for kind, pictures in held_out().items():
        answer = compare(pictures, index, progress=told(f"held out, {kind}"))
        document["held_out"][kind] = {"pictures": len(pictures), "called_copies": float(flagged(answer).mean())}
        document["unrelated"] = answer.unrelated
    # as in the training set, where control images are 3.8 times as many as general ones
    counts = {kind: sum(record.caption.kind == kind for record in training_records()) for kind in held_out()}
    rates = [document["held_out"][kind]["called_copies"] for kind in counts]
    document["held_out"]["as_in_the_training_set"] = float(np.average(rates, weights=list(counts.values())))
    return document | {"one_of_each_caption": one_of_each(work)}


def one_of_each(work: Path) -> dict[str, Any]:
    """Generations against one image of each caption: a template's foreground is then in one reference alone."""
    folder = work / "one-of-each"
    folder.mkdir(exist_ok=True)
    for caption in select():
        file = folder / f"{caption.kind}-{caption.index:03d}-000.png"
        if caption.kind != "unseen" and not file.exists():
            render(Record(caption, 0)).save(file)
    index = ReferenceIndex.build(folder, store=work / "one-of-each-index")
    found: dict[str, Any] = {"references": len(index)}
    for kind in ("verbatim", "template", "control", "general"):
        captions, images = generations(work, kind, "eval")
        answer = compare(pillow(images), index)
        found[kind] = {"called_copies": float(flagged(answer).mean()), "found": float(right(answer, captions).mean())}
    return found


def median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def told(name: str) -> Callable[[int, int | None], None]:
    """Progress, a line every minute."""
    last = [time.monotonic()]

    def progress(done: int, total: int | None) -> None:
        if time.monotonic() - last[0] > 60:
            last[0] = time.monotonic()
            print(f"{name}: {done} of {total}", flush=True)

    return progress


# --- photographs ---


def turned(degrees: float) -> Change:
    """Turned, with black corners, as it is."""
    return lambda image: image.rotate(degrees, Image.Resampling.BICUBIC)


def hue(image: Image.Image) -> Image.Image:
    """All hues moved by a third of the circle."""
    h, s, v = image.convert("HSV").split()
    return Image.merge("HSV", (h.point([(level + 85) % 256 for level in range(256)]), s, v)).convert("RGB")


def written_on(image: Image.Image) -> Image.Image:
    """With a bar and a line of text over it."""
    shown = image.copy()
    draw = ImageDraw.Draw(shown)
    draw.rectangle([0, round(image.height * 0.42), image.width, round(image.height * 0.55)], fill=(20, 20, 20))
    draw.text((image.width // 8, round(image.height * 0.45)), "nobody made this picture", fill=(250, 250, 250))
    return shown


class Pasted:
    """Pasted into an unrelated picture, so many sides wide, anywhere in it."""

    def __init__(self, share: float, grounds: Sequence[Image.Image]):
        self.share, self.grounds, self.random = share, grounds, random.Random(0)

    def __call__(self, image: Image.Image) -> Image.Image:
        ground = self.random.choice(self.grounds).copy()
        part = image.resize((round(ground.width * self.share), round(ground.height * self.share)))
        left, top = (self.random.randrange(ground.width - side + 1) for side in part.size)
        ground.paste(part, (left, top))
        return ground


def changes(grounds: Sequence[Image.Image]) -> dict[str, Change]:
    return {
        "JPEG 60": encoded("JPEG", quality=60),
        "JPEG 30": encoded("JPEG", quality=30),
        "25 % of the size": resized(0.25),
        "brighter by 30 %": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
        "grey": lambda image: image.convert("L").convert("RGB"),
        "other hues": hue,
        "flipped": ImageOps.mirror,
        "cut to the middle 75 %": trimmed(0.25),
        "cut to the middle 50 %": trimmed(0.5),
        "cut to the middle 50 %, flipped": lambda image: ImageOps.mirror(trimmed(0.5)(image)),
        "turned by 5 degrees": turned(5),
        "turned by 20 degrees": turned(20),
        "turned by 90 degrees": turned(90),
        "screenshot": screenshot,
        "written on": written_on,
        "pasted, 60 % wide": Pasted(0.6, grounds),
        "pasted, 40 % wide": Pasted(0.4, grounds),
        "pasted, 25 % wide": Pasted(0.25, grounds),
    }


def photographs(folder: Path) -> dict[str, Any]:
    """Tiles of the second half: half of them references, half unrelated to these."""
    known = saying(tiles(folder))
    known = known[len(known) // 2 :][:: max(1, len(known) // 2 // MOST_TILES)][:MOST_TILES]
    half = len(known) // 2
    mine, others = known[:half], known[half:]
    textured = np.array([len(local.features(one)) >= 100 for one in mine[::EVERY]])
    document: dict[str, Any] = {
        "references": len(mine),
        "copies_of_each_change": len(textured),
        "with_100_features": int(textured.sum()),
        "unrelated": len(others),
    }
    index, few = ReferenceIndex.build(mine), ReferenceIndex.build(mine[::EVERY][:FEW])
    for name, of in (("", index), (f"_{FEW}_references", few)):
        answer = compare(others, of, progress=told("unrelated"))
        document[f"unrelated_called_copies{name}"] = float(flagged(answer).mean())
    print(document, flush=True)
    document["changes"] = {}
    for name, change in changes(others).items():
        changed = [change(one) for one in mine[::EVERY]]
        answer = compare(changed, index, progress=told(name))
        names = [f"image {1 + EVERY * number}" for number in range(len(changed))]
        own = np.array([i.copy and i.nearest[0].reference == n for n, i in zip(names, answer.images, strict=True)])
        wrong = flagged(answer) & ~own
        same = [image.kind == "same picture" for image in np.array(answer.images, object)[own]]
        document["changes"][name] = {
            "found": float(own.mean()),
            "found_with_100_features": float(own[textured].mean()),
            "another_named": float(wrong.mean()),
            "same_picture_of_found": float(np.mean(same)) if same else None,
            "by_p_value": float(np.mean([i.copy and (i.p_value or 1) <= answer.alpha for i in answer.images])),
            "found_of_few": few_found(changed[:FEW], few),
        }
        print(name, document["changes"][name], flush=True)
    return document


def few_found(changed: Sequence[Image.Image], few: ReferenceIndex) -> float:
    """The share of copies that are found where there are FEW references alone."""
    answer = compare(list(changed), few)
    return float(np.mean([i.copy and i.nearest[0].reference == f"image {k}" for k, i in enumerate(answer.images, 1)]))


# --- large folders ---


def large(work: Path, folder: Path, rows: int) -> dict[str, Any]:
    """What a picture costs to look up among so many made-up rows, in units of what it costs to read and measure."""
    pictures = [one for _, one in zip(range(16), saying(tiles(folder)), strict=False)]
    files = []
    for number, picture in enumerate(pictures):
        picture.save(work / f"picture-{number}.jpg", quality=95)
        files.append(work / f"picture-{number}.jpg")
    seconds = {"decode": spent(lambda: [Image.open(file).convert("RGB") for file in files]) / len(files)}
    looked = [measured(read(file), None, True) for file in files]
    seconds["measure"] = spent(lambda: [measured(read(file), None, True) for file in files]) / len(files)
    place = work / f"made-up-{rows}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    write_manifest(place, settings_of(None, True), list(made_up(place, rows)))
    size = sum(file.stat().st_size for file in place.iterdir())
    began = time.process_time()
    index = Builder([Path(f"/nowhere/{n}.png") for n in range(rows)], place).built()
    index.words  # noqa: B018 - what it is made of is timed
    opened = time.process_time() - began
    one = spent(lambda: list(search(index, looked[:1])))
    many = spent(lambda: list(search(index, looked))) / len(looked)
    return {
        "rows": rows,
        "features_of_each": int(FEATURES),
        "bytes_of_each": size / rows,
        "measure_to_decode": seconds["measure"] / seconds["decode"],
        "seconds_per_1000_images": 1000 * seconds["measure"],
        "open_to_measure_1000": opened / (1000 * seconds["measure"]),
        "look_up_one_to_measure": one / seconds["measure"],
        "look_up_of_16_to_measure": many / seconds["measure"],
        "peak_memory": peak_memory(),
    }


FEATURES = 200


def made_up(place: Path, rows: int) -> Iterator[tuple[str, list[Entry | None]]]:
    rng = np.random.default_rng(0)
    for start in range(0, rows, ROWS):
        count = min(ROWS, rows - start)
        shard = Shard(
            copies=rng.integers(0, 256, (count, 16, 16, 3), np.uint8),
            codes=rng.integers(0, 2**63, (count, 4, BITS // 64), np.uint64),
            widths=np.ones(count, np.float32),
            embeddings=np.zeros((count, 0), np.float32),
            starts=np.arange(count + 1) * FEATURES,
            bits=rng.integers(0, 2**63, (count * FEATURES, 2), np.uint64),
            spots=rng.random((count * FEATURES, 4)).astype(np.float16),
        )
        entries: list[Entry | None] = [Entry(f"/nowhere/{start + n}.png", 0, 0, f"{start + n:x}") for n in range(count)]
        yield write_shard(place, shard), entries


def spent(work: Callable[[], object]) -> float:
    """The least processor time of three runs, seconds."""
    times = []
    for _ in range(3):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def main() -> None:
    asked = arguments(
        __doc__,
        work={"type": Path, "help": "a folder in which images and indexes are kept"},
        pictures={"type": Path, "help": "a folder of pictures, for the tiles"},
        rows={"type": int, "default": 100_000, "help": "made-up rows of a large index"},
        parts={"nargs": "*", "default": ["reproduction", "photographs", "large"]},
    )
    document: dict[str, Any] = {}
    if "reproduction" in asked.parts:
        document["reproduction"] = reproduction(asked.work)
    if "photographs" in asked.parts:
        document["photographs"] = photographs(asked.pictures)
        header = ["change", "found", "with features", "another", "same picture", "p", "of few"]
        table(header, [[name, *row.values()] for name, row in document["photographs"]["changes"].items()])
    if "large" in asked.parts:
        document["large"] = large(asked.work, asked.pictures, asked.rows)
        print(document["large"])
    if (RESULTS / "compare.json").exists():  # what is not measured anew stays
        document = {name: part for name, part in stored("compare").items() if name != "about"} | document
    store("compare", document)


if __name__ == "__main__":
    main()
