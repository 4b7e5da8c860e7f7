"""Small pictures of workflows, for ComfyUI's list of templates: what a run shows, readable at half its size.

The template browser shows them in squares of some 260 pixels, where a whole graph cannot be read.
"""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .browser import Browser
from .templates import ATTRIBUTE, CHECK, GATE, LINEAGE, LOCATE, MEMBERSHIP, SAVE

SIZE = (512, 512)
GRAPH = (800, 450)  # of a whole graph, for pages
QUALITY = 88
GAP, LETTERS, LINE, LINES = 12, 28, 34, 3  # pixels: around parts, of the captions; lines that a caption has at most
GROUND, EMPTY, WORDS, PLAIN = "#1b1b1e", "#2b2b30", "#ffffff", "#3a3a42"
# for each part the title of the node with its images, and who says something about it: a badge, or a text's first line
SHOWN = {
    CHECK: [("What the model then makes", "CryptomnesiaMemorizationCheck")] * 2,
    GATE: [
        ("Stays empty", "CryptomnesiaMemorizationGate"),
        ("No longer the training image", "CryptomnesiaMemorizationGate"),
    ],
    LOCATE: [("The mask", "How much of it"), ("That part made anew", "CryptomnesiaRewritePrompt")],
    ATTRIBUTE: [("Who likely made it", "What that rests on")],
    SAVE: [("CryptomnesiaSaveImage", "CryptomnesiaVerifyProvenance")],
    MEMBERSHIP: [("What was measured", "What that rests on")],
    LINEAGE: [("How far it is from each", "What that rests on")],
}
# text and colour of a node's badge of this pack
BADGE = """(node => {
  const shown = (node.badges ?? []).map(one => (typeof one === 'function' ? one() : one)).filter(one => one?.text);
  const found = shown.filter(one => one.text !== 'cryptomnesia');
  return found.length ? [found[0].text, found[0].bgColor] : null;
})(app.graph.getNodeById(%s))"""
Part = tuple[Image.Image | None, str, str]  # a picture, if there is one; words and the colour behind them


def parts(browser: Browser, name: str, saved: dict[str, Any], history: dict[str, Any]) -> list[Part]:
    """What a template shows after a run, for its thumbnail."""
    taken: Counter[str] = Counter()

    def number(title: str) -> int:
        found = [one["id"] for one in saved["nodes"] if title in (one.get("title"), one["type"])]
        taken[title] += 1
        return found[taken[title] - 1]

    made: list[Part] = []
    for picture, speaker in SHOWN[name]:
        files = (history["outputs"].get(str(number(picture))) or {}).get("images", [])
        images = [Image.open(io.BytesIO(browser.server.fetch(file))).convert("RGB") for file in files]
        who = number(speaker)
        words, colour = browser.evaluate(BADGE % who) or (first_line(history, who), PLAIN)
        made.append((sheet(images) if images else None, words, colour))
    return made


def first_line(history: dict[str, Any], number: int) -> str:
    """Of the text in a preview node; what it shows is a list, or the JSON of one."""
    text = history["outputs"][str(number)]["text"][0]
    return str(json.loads(text)[0] if text.startswith("[") else text).splitlines()[0].rstrip(".")


def sheet(images: list[Image.Image]) -> Image.Image:
    """Four images or more as two by two; else the first."""
    if len(images) < 4:
        return images[0]
    width, height = images[0].size
    made = Image.new("RGB", (2 * width, 2 * height))
    for number, image in enumerate(images[:4]):
        made.paste(image, (number % 2 * width, number // 2 * height))
    return made


def thumbnail(shown: list[Part], target: Path) -> Path:
    """Writes a JPEG of SIZE: the parts side by side, each above its words."""
    whole = Image.new("RGB", SIZE, GROUND)
    width = (SIZE[0] - GAP) // len(shown) - GAP
    font = ImageFont.load_default(LETTERS)
    captions = [wrapped(words, width - GAP, font) for _, words, _ in shown]
    below = max(map(len, captions)) * LINE + GAP
    pictures = [image and fitted(image, width, SIZE[1] - 3 * GAP - below) for image, _, _ in shown]
    height = max(image.height for image in pictures if image)
    apart = height + GAP + below
    y = (SIZE[1] - apart) // 2
    draw = ImageDraw.Draw(whole)
    for number, (image, lines) in enumerate(zip(pictures, captions, strict=True)):
        x = GAP + number * (width + GAP)
        if image is None:
            draw.rectangle((x, y, x + width - 1, y + height - 1), EMPTY)
        else:
            whole.paste(image, (x + (width - image.width) // 2, y + (height - image.height) // 2))
        box = (x, y + height + GAP, x + width - 1, y + apart - 1)
        draw.rounded_rectangle(box, 8, shown[number][2])
        middle = (box[1] + box[3] - LINE * (len(lines) - 1)) / 2
        for row, line in enumerate(lines):
            draw.text((x + width / 2, middle + LINE * row), line, WORDS, font=font, anchor="mm")
    whole.save(target, quality=QUALITY, optimize=True)
    return target


def fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    """As large as there is room."""
    scale = min(width / image.width, height / image.height)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


def wrapped(words: str, room: int, font: Any) -> list[str]:
    """Lines that fit; what is too much for them is left out, and dots say so."""
    lines = [""]
    for word in words.replace(" = ", "\xa0=\xa0").split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    lines = lines if len(lines) <= LINES else [*lines[: LINES - 1], f"{lines[LINES - 1]} ..."]
    return [line.replace("\xa0", " ") for line in lines]  # which Pillow's font does not have


def framed(photograph: Path, target: Path) -> Path:
    """Writes a JPEG of a whole graph."""
    with Image.open(photograph) as image:
        picture = image.convert("RGB")
    background = picture.getpixel((0, 0))
    picture.thumbnail(GRAPH, Image.Resampling.LANCZOS)
    whole = Image.new("RGB", GRAPH, background)
    whole.paste(picture, ((GRAPH[0] - picture.width) // 2, (GRAPH[1] - picture.height) // 2))
    whole.save(target, quality=QUALITY, optimize=True)
    return target
