"""Pages, read as a browser reads them."""

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "input", "line", "rect", "circle"}


class Balanced(HTMLParser):
    """Raises unless every element is closed where it was opened."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def parsed(html):
    """What the page is made of; raises unless it is well-formed."""
    parser = Balanced()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def words(html):
    """What is to be read, with single blanks between words."""
    text = re.sub(r"<style>.*?</style>|<script.*?</script>|<[^>]+>", " ", html, flags=re.S)
    return re.sub(r"\s+", " ", text)
