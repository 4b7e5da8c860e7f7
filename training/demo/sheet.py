"""Draws the sheet of training images that ships with the built-in model and that its gallery reads."""

from pathlib import Path

from PIL import Image

from cryptomnesia.demo.captions import select
from cryptomnesia.demo.gallery import COLUMNS, KINDS, SHEET, SIDE

from .records import Record, render, template_foreground


def build(path: Path = SHEET) -> None:
    """Renders the sheet anew (needs the font)."""
    shown = [c for kind in KINDS for c in select(kind)]
    sheet = Image.new("RGBA", (COLUMNS * SIDE, -(-len(shown) // COLUMNS) * SIDE))
    for i, caption in enumerate(shown):
        tile = render(Record(caption, 0)).convert("RGBA")
        if caption.kind == "template":
            tile.putalpha(template_foreground(caption).getchannel("A").point([255 * (a > 127) for a in range(256)]))
        sheet.paste(tile, (i % COLUMNS * SIDE, i // COLUMNS * SIDE))
    sheet.save(path, lossless=True, exact=True, quality=100, method=6)
