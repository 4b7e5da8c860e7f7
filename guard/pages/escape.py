"""Text from outside inside a page: the one way in."""

import html
import re

# C0 and C1 (but for tab and line ends), halves of surrogate pairs, and what turns the direction of the text around it;
# joiners, which emoji and some scripts are written with, stay
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufeff]")


def escape(text: str) -> str:
    """A text as HTML, inside an element or a quoted attribute; letters that no page should hold become U+FFFD."""
    return html.escape(_UNFIT.sub("\ufffd", text))
