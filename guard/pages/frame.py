"""What all pages share: the document around them, verdicts in words, the score chart's panel, the footer."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from .escape import escape

BADGES = {
    "memorized": "▲ likely memorized",
    "clear": "✓ clear",
    "uncalibrated": "? uncalibrated",
    "not applicable": "– not applicable",
}


def document(title: str, style: str, body: Iterable[str], script: str | None = None) -> str:
    """A whole HTML document that needs nothing beside it, and in which nothing runs or is loaded but its own.

    Args:
        title: Of the window.
        style: Name of the page's own style sheet in this folder, which is read after the common one.
        body: Parts, as HTML.
        script: Name of the page's own script in this folder, if it has one; what it loads may run, too.
    """
    css = "\n" + "".join(_read(name) for name in ("page.css", style))
    code = None if script is None else "\n" + _read(script)
    ending = "" if code is None else f"\n<script>{code}</script>"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(css, code)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{css}</style>\n</head>\n"
        "<body>\n" + "\n".join(body) + f"{ending}\n</body>\n</html>\n"
    )


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


def _policy(css: str, code: str | None) -> str:
    """No network, no frames, no forms; one style sheet and, where there is one, one script and the files it loads."""
    script = "" if code is None else f"script-src {_digest(code)} 'strict-dynamic'; "
    return f"default-src 'none'; style-src {_digest(css)}; {script}img-src data:; base-uri 'none'; form-action 'none'"


def _digest(part: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'"


def look(verdict: str) -> str:
    """The class that colours whatever stands for a verdict."""
    return verdict if verdict in ("memorized", "clear") else "other"


def p_text(p_value: float) -> str:
    """A p-value to three digits, or to five where it is tiny."""
    return f"{p_value:.{3 if p_value >= 0.001 else 5}f}"


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """Large values, each with what it is beneath; both are HTML."""
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for value, name in pairs)
        + "</div>"
    )


def chart_panel(svg: str, *, keyed: bool = True) -> str:
    """A score chart, with the key to its marks unless they need none."""
    key = (
        '<p class="key"><span><i class="flagged"></i>likely memorized</span>'
        '<span><i class="passed"></i>clear</span><span><i class="bar"></i>benign prompts</span></p>'
    )
    hint = '<p class="sideways">The chart goes on to the right, where high scores are: move it sideways.</p>'
    # with a tabindex, so that arrow keys move it, too
    return (
        f'<div class="panel">{hint}<div class="scroll" tabindex="0" role="region" aria-label="chart">{svg}</div>'
        f"{key if keyed else ''}</div>"
    )


def meaning(title: str, means: Sequence[str], limits: Sequence[str]) -> str:
    """A section that says what the page's words mean, beside what they do not; sentences are HTML."""
    lists = ["<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>" for items in (means, limits)]
    return (
        f'<section>\n<h2>{escape(title)}</h2>\n<div class="meaning">'
        f"<div><h3>It means</h3>{lists[0]}</div><div><h3>Its limits</h3>{lists[1]}</div></div>\n</section>"
    )


def footer(facts: Sequence[tuple[str, str]]) -> str:
    """Lines (name, value): with what, and how, the page was made."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd><code>{escape(value)}</code></dd>" for name, value in facts)
    return f"<footer><dl>{rows}</dl></footer>"
