"""The one way into a page: templates that escape all text, in a frame that lets nothing run or load but its own."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .images import data_uri, photo_uri
from .wording import amount, badge, look, p_text, percent, pixels

LIBRARY = Path(__file__).parents[1]
COMMON = "pages/page.css"
# C0 and C1 (but for tab and line ends), halves of surrogate pairs, and what turns the direction of the text around it;
# joiners, which emoji and some scripts are written with, stay
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufeff]")


def render(template: str, page: object, *, script: str | None = None) -> str:
    """Returns a whole HTML document that needs nothing beside it, and that runs and loads nothing but its own.

    Args:
        template: Name of the page's template in the library, e.g. "demo/page.html". Its style sheet lies beside it,
            with the same name, and is read after the common one.
        page: What the template shows; it knows it as `page`.
        script: Name of the page's own script in the library, if it has one; what that loads may run, too.
    """
    style = "\n" + _read(COMMON) + _read(str(Path(template).with_suffix(".css")))
    code = None if script is None else "\n" + _read(script)
    return (
        templates()
        .get_template(template)
        .render(
            page=page,
            style=Markup(style),  # the library's own files, not text
            style_digest=_digest(style),
            script=None if code is None else Markup(code),
            script_digest=None if code is None else _digest(code),
        )
    )


@cache
def templates() -> Environment:
    """Returns the environment of all templates of the library, by their names in it.

    What they show is escaped, and what is missing is an error.
    """
    environment = Environment(
        loader=FileSystemLoader(LIBRARY),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_fit,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "amount": amount,
        "badge": badge,
        "data_uri": data_uri,
        "look": look,
        "number": format,
        "p_text": p_text,
        "percent": percent,
        "photo_uri": photo_uri,
        "pixels": pixels,
    }
    return environment


def _fit(value: object) -> object:
    """Text with U+FFFD for letters that no page should hold; what was rendered already stays as it is."""
    return value if isinstance(value, Markup) else _UNFIT.sub("\ufffd", str(value))


def _read(name: str) -> str:
    return (LIBRARY / name).read_text("utf-8")


def _digest(part: str) -> str:
    return base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
