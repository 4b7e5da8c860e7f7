"""Images from the command line: files, and folders of files."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..images import SUFFIXES


def image_files(places: Sequence[Path]) -> list[Path]:
    """Files as they are, and the images of folders by name.

    Raises:
        InputError: A place does not exist, or a folder without images.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            own = sorted(file for file in place.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
            if not own:
                raise InputError(f"the folder {place} holds no images ({', '.join(SUFFIXES)}): give another")
            found += own
        elif place.exists():
            found.append(place)
        else:
            raise InputError(f"there is no image or folder {place}: check the name")
    return found
