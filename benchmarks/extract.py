"""Which pictures of an artist's folder does `extract` get out of a model, and which does it accuse it of wrongly?
`python -m benchmarks.extract --work WORK` (needs the font).

The folder holds what the built-in model reproduces (images of verbatim captions, one picture with the figure of each
template caption) and what it cannot: renderings of general and control captions that were never trained on, although
the captions were. Whether a generation really reproduces is told by pixels, as in `benchmarks.demo_model`. That a copy
stands only where the check calls its words memorized was decided after a look at the everyday captions of the eval
split; the folder of the dev split's captions had no part in it.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np

from cryptomnesia import Guard, load_demo
from cryptomnesia.demo import demo_calibration
from cryptomnesia.demo.captions import Caption, select
from cryptomnesia.extraction import Extraction, Sampling, extract
from cryptomnesia.extraction.run import Run
from cryptomnesia.images import open_image
from training.demo.records import RENDERINGS, Record, render

from .common import arguments, store, stored, table
from .demo_model import own_distances

HELD = ("verbatim", "template")
FOLDERS = {  # split, and how many captions of each kind
    "180 pictures": ("eval", {"verbatim": 40, "template": 20, "general": 80, "control": 40}),
    "45 pictures": ("eval", {"verbatim": 10, "template": 5, "general": 20, "control": 10}),
    "144 pictures, other captions": ("dev", {"verbatim": 8, "template": 4, "general": 120, "control": 12}),
}
SEEDS = 4


def picture(caption: Caption) -> Any:
    """What the artist has: a training image where one returns, else a rendering that nobody trained on."""
    return render(Record(caption, 0 if caption.kind in HELD else RENDERINGS[caption.kind]))


def folder(work: Path, name: str, split: str, counts: dict[str, int]) -> tuple[Path, dict[str, Caption]]:
    """The artist's folder, and the caption of each picture by its name."""
    place, captions = work / name, {}
    place.mkdir(parents=True, exist_ok=True)
    for kind, count in counts.items():
        for caption in random.Random(f"extract/{kind}").sample(select(kind, split), count):
            file = f"{kind}-{caption.index:03d}.png"
            captions[file] = caption
            picture(caption).save(place / file)
            (place / file).with_suffix(".txt").write_text(caption.text)
    return place, captions


def really(run: Run, found: Extraction, captions: dict[str, Caption]) -> set[str]:
    """Names of pictures that one of the images that were made reproduces, by pixels."""
    limits, reproduced = stored("demo_model")["limits"], set()
    for one in found.suspicious:
        for place in one.asked.pictures:
            name = found.captions.name(place)
            caption = captions[name]
            if caption.kind in HELD:
                files = [run.image(one.asked.prompt, seed) for seed in one.seeds]
                images = np.stack([np.asarray(open_image(file).convert("RGB")) for file in files])
                if (own_distances([caption], images[None]) < limits[caption.kind]).any():
                    reproduced.add(name)
    return reproduced


def main() -> None:
    options = arguments(__doc__, work={"type": Path, "required": True, "help": "where folders and images are kept"})
    document: dict[str, Any] = {"seeds": SEEDS}
    for name, (split, counts) in FOLDERS.items():
        place, captions = folder(options.work, name, split, counts)
        guard, sampling = Guard(load_demo(), demo_calibration()), Sampling(SEEDS)
        out = options.work / f"{name}, found"
        found = extract(guard, place, out, sampling=sampling, model="the built-in model")
        truth = really(Run(out, {}), found, captions)
        called = {found.captions.name(number) for number in found.reproduced}
        shown = {found.captions.name(copy.picture) for one in found.vague for copy in one.copies} - called
        row: dict[str, Any] = {"pictures": len(captions), "suspicious": len(found.suspicious), "images": found.images}
        for kind in counts:
            names = {file for file, caption in captions.items() if caption.kind == kind}
            row[kind] = {
                "pictures": len(names),
                "reproduced_by_pixels": len(names & truth),
                "called_reproduced": len(names & called),
                "of_those_by_pixels": len(names & called & truth),
                "shown_without_standing": len(names & shown),
            }
        document[name] = row
        print(name, row, flush=True)
    table(
        ["folder", "kind", "pictures", "reproduced, by pixels", "called reproduced"],
        [
            [name, kind, *(document[name][kind][k] for k in ("pictures", "reproduced_by_pixels", "called_reproduced"))]
            for name, (_, counts) in FOLDERS.items()
            for kind in counts
        ],
    )
    store("extract", document)


if __name__ == "__main__":
    main()
