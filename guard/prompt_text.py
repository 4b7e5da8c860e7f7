"""The one rule on what a prompt is, for prompt files and for text encoders."""

import unicodedata

LONGEST = 20_000  # characters; text encoders read some hundred words, and tokenizers may be slow on the rest
_UNSEEN = {"Cc", "Cf", "Zl", "Zp", "Zs"}


def fault(text: str) -> str | None:
    """Returns why a text is no prompt, to be read after its place; None if it is one."""
    if not text:
        return "is empty"
    if len(text) > LONGEST:
        return f"has {len(text)} characters, and at most {LONGEST} are read"
    if "\0" in text:
        return "holds a NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "is not valid Unicode text"
    if all(unicodedata.category(letter) in _UNSEEN for letter in text):
        return "has no character that can be seen"
    return None
