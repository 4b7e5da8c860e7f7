"""Images from the command line: files, and folders of files."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..images import images_among, no_images


def image_files(places: Sequence[Path]) -> list[Path]:
    """Returns files as they are, and the images of folders, sorted by name.

    Raises:
        InputError: A place does not exist, or a folder without images.
    """
    files: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = images_among(place.iterdir())
            if not inside:
                raise no_images(place)
            files += inside
        elif place.exists():
            files.append(place)
        else:
            raise InputError(f"there is no image or folder {place}: check the name")
    return files


def require_pictures(files: Sequence[Path]) -> None:
    """Reads all files once, so that one that says nothing is found before the long work.

    Raises:
        InputError: As in `read_picture`.
    """
    from ..pixels import read_picture

    for file in files:
        read_picture(file)
