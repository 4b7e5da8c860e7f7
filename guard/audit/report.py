"""report.html: what a run amounts to, as one page, with the texts of large runs in a folder beside it."""

from pathlib import Path
from typing import Any

from ..calibration import Calibration
from ..errors import InputError
from ..progress import Progress
from .report_files import publish
from .report_images import images_page
from .report_prompts import prompts_page
from .results import Results, Spool

PAGE = "report.html"


def write_report(
    folder: Path,
    *,
    pipe: Any = None,
    gallery: int = 12,
    calibration: Calibration | None = None,
    images: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes report.html into the folder of a run, finished or not, and returns its path.

    An older report stays whole until the new one takes its place. The page needs no network; runs of more than 2,000
    rows keep their texts in report/ beside it.

    Args:
        folder: The run's folder.
        pipe: The pipeline that makes the images of the gallery; without it, the gallery has none.
        gallery: How many of the likeliest memorized prompts, near-identical ones once, or of the oddest images are
            shown apart.
        calibration: The run's calibration, for the histogram of benign scores and the spread of false alarms.
        images: The folder that the images of a run over images lie in; without it, the gallery has no pictures.
        progress: Called with the numbers of images of the gallery done and of all.

    Raises:
        InputError: The folder holds no run, a part is damaged, the calibration is another, or nothing can be written.
        MissingPackage: pyarrow is not installed, or Pillow, where there are images.
    """
    results = Results(folder)
    if calibration is not None and calibration.identity != results.run.get("calibration"):
        raise InputError(
            f"the calibration {calibration.identity} is not that of this audit ({results.run.get('calibration')}): "
            "give that one, or none"
        )
    with Spool(results.texts()) as texts:
        if results.kind == "prompts":
            page, order = prompts_page(results, texts, calibration, pipe=pipe, gallery=gallery, progress=progress)
        else:
            page, order = images_page(results, texts, gallery=gallery, images=images)
        return publish(folder / PAGE, page, texts, order)
