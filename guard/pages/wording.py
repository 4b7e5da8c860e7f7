"""How pages write verdicts and numbers."""

BADGES = {
    "memorized": "▲ likely memorized",
    "clear": "✓ clear",
    "uncalibrated": "? uncalibrated",
    "not applicable": "– not applicable",
}


def badge(verdict: str) -> str:
    """The verdict in words, with a sign, so that colour is not all that tells."""
    return BADGES.get(verdict, verdict)


def look(verdict: str) -> str:
    """The class that colours whatever stands for a verdict."""
    return verdict if verdict in ("memorized", "clear") else "other"


def p_text(p_value: float) -> str:
    """A p-value to three digits, or to five where it is tiny."""
    return f"{p_value:.{3 if p_value >= 0.001 else 5}f}"


def amount(value: float) -> str:
    """A count that need not be whole, with two digits at least."""
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:g} %"


def pixels(place: float) -> str:
    """A place or length in a drawing; what is not whole by nature, to a tenth of a pixel."""
    return str(place) if isinstance(place, int) else f"{place:.1f}"
