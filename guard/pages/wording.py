"""How pages write verdicts and numbers."""

BADGES = {
    "memorized": "▲ likely memorized",
    "clear": "✓ clear",
    "uncalibrated": "? uncalibrated",
    "not applicable": "– not applicable",
}


def badge(verdict: str) -> str:
    """Returns the verdict in words, with a sign, so that colour is not all that tells."""
    return BADGES.get(verdict, verdict)


def look(verdict: str) -> str:
    """Returns the class that colours whatever shows a verdict."""
    return verdict if verdict in ("memorized", "clear") else "other"


def p_text(p_value: float) -> str:
    """Returns a p-value with three decimals, or with five where it is below 0.001."""
    return f"{p_value:.{3 if p_value >= 0.001 else 5}f}"


def amount(value: float) -> str:
    """Returns a count that need not be whole, with two digits at least."""
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def percent(share: float) -> str:
    """Returns a share in [0, 1] in percent."""
    return f"{100 * share:g} %"


def pixels(length: float) -> str:
    """Returns a position or length in a drawing; what is not whole by nature, to a tenth of a pixel."""
    return str(length) if isinstance(length, int) else f"{length:.1f}"
