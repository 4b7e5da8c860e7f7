"""Small pictures of workflows, for ComfyUI's list of templates."""

from pathlib import Path

from PIL import Image

SIZE = (800, 450)
QUALITY = 88


def thumbnail(photograph: Path, target: Path) -> Path:
    """A JPEG of SIZE with the whole picture in it."""
    with Image.open(photograph) as image:
        picture = image.convert("RGB")
    background = picture.getpixel((0, 0))
    picture.thumbnail(SIZE, Image.Resampling.LANCZOS)
    framed = Image.new("RGB", SIZE, background)
    framed.paste(picture, ((SIZE[0] - picture.width) // 2, (SIZE[1] - picture.height) // 2))
    framed.save(target, quality=QUALITY, optimize=True)
    return target
