"""All pages with text that means harm: it stays text, nothing but a page's own runs, and all of it fits on a phone."""

import ast
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cryptomnesia.audit.images import ImageJob
from cryptomnesia.audit.report import write_report
from cryptomnesia.audit.rows import Reject
from cryptomnesia.benchmark import page as benchmark
from cryptomnesia.benchmark.reproduction import Reproduction
from cryptomnesia.commands import compare_page as compare
from cryptomnesia.commands import lineage_page as lineage
from cryptomnesia.commands import lora_page as lora
from cryptomnesia.commands import rewrite_page as rewrite
from cryptomnesia.commands import verify_page as verify
from cryptomnesia.commands.rewrite_cases import Case, Pictures
from cryptomnesia.demo import page as demo
from cryptomnesia.extraction import Asked, Captions, Copy, Evidence, Extraction
from cryptomnesia.extraction import page as extraction
from cryptomnesia.lineage.parentage import Parentage
from cryptomnesia.lora.results import Cell, LoraCheck, PromptFinding
from cryptomnesia.pages.frame import LIBRARY, render, templates
from cryptomnesia.sidecar import Verification
from cryptomnesia.signals.lineage import Lineage
from cryptomnesia.similarity import NONE, PART, Comparison, ImageComparison, Match

from ..audit.test_report import image_record
from ..benchmark.test_page import evaluated
from ..helpers.audited import KNOWN, prompts_run, write_run
from ..helpers.markup import parsed
from ..helpers.mended import mitigation as mended
from ..helpers.mended import report

HOSTILE = [
    "</title></style></script><script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">",
    "\" autofocus onfocus=\"document.title='hacked'\" '><svg onload=document.title='hacked'>",
    "\x1b[31mred\x07 \x9b0m \x00 \ud800 \u202egnp.exe\u2066 \u2028line",
    "<!-- ]]> &lt;b&gt; &#60; <style>*{display:none}</style><meta http-equiv=refresh content=0>",
    "x" * 10_000,
]
PAGES = ("demo", "rewrite", "lineage", "compare", "extract", "lora", "benchmark", "verify", "audit", "audit of images")
CLOSEST = np.full((64, 64, 4), 9, np.uint8)
PICTURE = np.full((64, 64, 3), 128, np.uint8)


def demo_page(text):
    options = {"prompt": text, "reason": text, "note": text}
    none = options | {"verdict": "not applicable", "score": None}
    cards = [
        demo.Card(report(**options), "g", text, PICTURE[None], [0.5], CLOSEST, text),
        demo.Card(report(**none), "h", text, PICTURE[None], [0.5], CLOSEST, text),
    ]
    groups = [demo.Group("g", text, text, f"{text[:20]}\nx", True), demo.Group("h", text, text, "b", False)]
    benign = np.linspace(-2, 2, 120).tolist()
    return demo.render(demo.DemoPage(groups, cards, benign, 2.0, 0.01, 9, 1.0, 2.0, [(text, text)]))


def rewrite_page(text):
    sides = Pictures(np.stack([PICTURE] * 2), [text, "seed 1"])
    words = [dataclasses.replace(word, word=text, became=text) for word in mended().words]
    cases = [
        Case(report(text), mended(original=text, rewritten=f"{text} {text}", words=words), sides, sides),
        Case(report(text), mended(held=False, original=text, reason=text), sides),
    ]
    page = rewrite.MitigationPage(cases, "rewrite", [-1.0, 0.0, 1.0], 2.0, 0.01, 0.1, [(text, text)])
    return rewrite.render(page)


def parentage_page(text):
    names = [text, f"{text}2", "c"]
    distances = dict(zip(names, (0.2, 0.9, 1.1), strict=True))
    one = Lineage(text, text, distances, 0.7, 0.4, {(text, "c"): 1.0}, {"twin": text}, (30, dict.fromkeys(names, 30)))
    found = Parentage(text, dict.fromkeys(names, 1), 0.95, one, {text: one, "b": one}, text)
    return lineage.render(lineage.LineagePage(found, {text: dict.fromkeys(names, [PICTURE] * 8)}, [(text, text)]))


def compare_page(text):
    picture = Image.fromarray(PICTURE)
    match = Match(text, PART, 0.002, 0.9, True, False, 30, 0.5, (64, 64))
    about = {"reason": None, "itself": True, "repeats": text, "references": 200, "digest": "0" * 64, "alpha": 0.01}
    copy = ImageComparison(text, PART, 0.002, (match,), **about)
    other = ImageComparison(text, NONE, None, (), **about | {"reason": text})
    rejected = {text: text}
    answer = Comparison((copy, other), rejected, 200, rejected, ((text, text),), 200, 0.01, False, text, "0" * 64)
    shown = [compare.Shown(copy, picture, picture), compare.Shown(other, None, None)]
    return compare.render(compare.ComparePage(answer, shown, [copy, other], 3, [(text, text)]))


def extraction_page(text):
    picture = Image.fromarray(PICTURE)
    match = Match(text, PART, 0.002, 0.9, False, False, 30, None, (64, 64))
    about = {"reason": None, "itself": False, "repeats": None, "references": 2, "digest": "0" * 64, "alpha": 0.01}
    copy = Copy(0, 1, False, ImageComparison(text, PART, 0.002, (match,), **about), 0.003, True)
    folder = Path("/mine")
    asked = (Asked(text, (0,), "list"), Asked("b", (), "given"))
    captions = Captions(folder, (folder / "a.png", folder / (text[:99].replace("/", "") or "c")), asked, (text,))
    check = {"p_value": 0.003, "score": 1.0, "verdict": "memorized", "reason": None}
    found = Extraction(
        captions,
        (Evidence(asked[0], check, (0, 1), (copy,)), Evidence(asked[1], check | {"p_value": None})),
        *(0.05, 0.05, {text: text}, ((text, text),)),
    )
    exhibit = extraction.Exhibit(found.evidence[0], copy, text, *[picture] * 4)
    return extraction.render(found, text, [exhibit], signed=True)


def lora_page(text):
    cells = tuple(Cell(strength, strength, 0.01, strength, 0.01, 0.01) for strength in (0.0, 0.5, 1.0))
    kinds = ("memorized", "memorized by the base", "unsure", "clear")
    found = [PromptFinding(text, text, kind, 0.01, 0.02, 0.5, cells) for kind in kinds]
    benign = [np.linspace(-1, 1, 120).tolist()] * 3
    check = LoraCheck(
        text, text, [4], [0.0, 0.5, 1.0], 0.01, 0.05, found, benign, 4, 0, "empty branch", 9, [text] * 3, [text]
    )
    return lora.render(lora.LoraPage(check, [(text, PICTURE)], [(text, text)]))


def benchmark_page(text):
    found, calibration = evaluated(bad=text, negatives=text)
    exhibit = benchmark.Exhibit(text, True, Reproduction(1.0, 0.01, [0.1, 0.2]), PICTURE[None], PICTURE)
    made = benchmark.Generated([5, 6], text, [benchmark.KindMade(text, 30, 29, 1)], [exhibit])
    cost = benchmark.Cost(1234, 12.34, 6.0, 60)
    page = benchmark.BenchmarkPage(text, found, calibration, text, cost, [text], made, [(text, text)])
    return benchmark.render(page)


def verify_page_of(text):
    found = Verification(
        image=text,
        sidecar="found",
        file="same",
        pixels="same",
        signature="valid, signer unknown",
        agreement="same",
        clock="fine",
        evidence=[(text, "same")],
        claims=None,
        lines=[text],
        signer=text,
        found=[{"name": text, "distance": 1, "content_id": text}],
        fields={"provider": text, "system": text},
    )
    stripped = dataclasses.replace(found, sidecar="missing", signature="none", agreement=None, fields=None)
    shown = [verify.Shown(text, one, PICTURE) for one in (found, stripped)]
    return render("commands/verify_page.html", verify.VerifyPage(shown, [(text, text)]))


def audit_page(text, folder, kind):
    known = text.replace("\ud800", "")  # rows are Unicode, since the reader rejects what is not
    if kind == "audit":
        run = prompts_run(folder, [known, known, "b"], [3.0, 3.0, 0.0], rejects=[Reject(3, known, known, 4)])
        page = write_report(run, calibration=KNOWN)
    else:
        words = dict.fromkeys(("sidecar", "file", "pixels", "c2pa", "claimed_verdict", "made_by", "note"), known)
        rows = [image_record(0, known, **words), image_record(1, "b.png", sidecar="found")]
        about = {"membership": {"verdict": "no evidence", "headline": known, "notes": [known]}}
        run = write_run(folder, "images", 3, rows, ImageJob(folder).schema(), [Reject(2, known, known)], **about)
        page = write_report(run)
    return page.read_text("utf-8")


def made(kind, text, folder):
    if kind.startswith("audit"):
        return audit_page(text, folder, kind)
    pages = {"demo": demo_page, "rewrite": rewrite_page, "lineage": parentage_page, "benchmark": benchmark_page}
    more = {"compare": compare_page, "extract": extraction_page, "lora": lora_page, "verify": verify_page_of}
    return (pages | more)[kind](text)


class Attributes(HTMLParser):
    """All attributes, and the policy."""

    def __init__(self, html):
        super().__init__()
        self.names, self.metas = set(), []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.names |= {name for name, _ in attrs}
        self.metas += [dict(attrs)] if tag == "meta" else []


@pytest.mark.parametrize("kind", PAGES)
@pytest.mark.parametrize("text", HOSTILE, ids=["tags", "quotes", "controls", "comments", "long"])
def test_hostile_text_stays_text_on_every_page(tmp_path, kind, text):
    html = made(kind, text, tmp_path)
    plain = made(kind, "a cat", tmp_path / "plain")
    html.encode()
    # the same elements and attributes as with an ordinary text, but for words that are marked and texts that fold
    extra = {"del", "ins", "tr", "td", "details", "summary"}
    assert set(parsed(html).seen) - extra == set(parsed(plain).seen) - extra
    found, usual = Attributes(html), Attributes(plain)
    assert found.names <= usual.names and not any(name.startswith("on") or name == "style" for name in found.names)
    outside = re.sub(r'<script type="application/json".*?</script>', "", html, flags=re.S)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", outside)


@pytest.mark.parametrize("kind", PAGES)
def test_every_page_forbids_what_is_not_its_own(tmp_path, kind):
    (policy,) = [m["content"] for m in Attributes(made(kind, "a cat", tmp_path)).metas if "http-equiv" in m]
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert parts["default-src"] == "'none'" and parts["base-uri"] == parts["form-action"] == "'none'"
    assert re.fullmatch(r"'sha256-[\w+/=]+'", parts["style-src"]) and parts["img-src"] == "data:"
    assert ("script-src" in parts) == kind.startswith("audit") and "unsafe" not in policy


# --- the one way into a page ---

TEMPLATES = sorted(path.relative_to(LIBRARY).as_posix() for path in LIBRARY.rglob("*.html"))
MODULES = sorted(LIBRARY.rglob("*.py"))
# files of the library (a style sheet, a script), and JSON without letters that HTML minds
UNESCAPED = {"pages/frame.py": 2, "audit/table.py": 1}


def named(path):
    return path.relative_to(LIBRARY).as_posix()


def test_there_is_no_other_page():
    """Whoever adds one adds it here: every template of a page is among those above."""
    pages = {name for name in TEMPLATES if '{% extends "pages/frame.html" %}' in (LIBRARY / name).read_text("utf-8")}
    others = {f"{name}/page.html" for name in ("audit", "benchmark", "demo", "extraction")}
    commands = ("compare", "lineage", "lora", "rewrite", "verify")
    assert pages == others | {f"commands/{name}_page.html" for name in commands}
    for name in TEMPLATES:
        assert ("<html" in (LIBRARY / name).read_text("utf-8")) == (name == "pages/frame.html")


def test_every_template_is_rendered_by_the_one_environment_that_escapes():
    assert templates() is templates() and templates().autoescape is True
    for name in TEMPLATES:
        templates().get_template(name)
    makers = {named(file) for file in MODULES if re.search(r"^\s*(from|import) jinja2", file.read_text("utf-8"), re.M)}
    assert makers == {"pages/frame.py"}


def test_nothing_is_left_unescaped_but_what_is_listed():
    found = {named(file): len(re.findall(r"\bMarkup\(", file.read_text("utf-8"))) for file in MODULES}
    assert {name: count for name, count in found.items() if count} == UNESCAPED


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_evades_the_escaping(name):
    text = (LIBRARY / name).read_text("utf-8")
    # what ends or forestalls it, filters that make markup of text, attributes without quotes, and those that run
    assert not re.search(r"\|\s*(safe|e|escape|forceescape|urlize|xmlattr|tojson)\b|autoescape|__html__", text)
    assert not re.search(r"=\s*{{|<{{|\s(on\w+|style)=", text)


def test_html_stands_in_templates_only():
    elements = {tag for name in TEMPLATES for tag in re.findall(r"<([a-z]\w*)", (LIBRARY / name).read_text("utf-8"))}
    tag = re.compile(rf"</?({'|'.join(sorted(elements))})(?![\w-])[^<]*>")
    for file in MODULES:
        source = file.read_text("utf-8")
        assert not re.search(r"^\s*(from|import) html\b", source, re.M), file
        nodes = list(ast.walk(ast.parse(source)))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}  # may speak of elements
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                assert not tag.search(node.value), (file, node.value)


def test_text_is_escaped_and_unfit_letters_are_replaced():
    shown = templates().from_string(
        "{% macro m(a) %}<b title='{{ a }}'>{{ a }}</b>{% endmacro %}{{ m(text) }}{{ text }}"
    )
    assert shown.render(text="\u202e<\x1b'\ud800") == (
        "<b title='\ufffd&lt;\ufffd&#39;\ufffd'>\ufffd&lt;\ufffd&#39;\ufffd</b>\ufffd&lt;\ufffd&#39;\ufffd"
    )


def test_letters_that_belong_to_words_stay():
    for text in ("👩‍🎨 می‌خواهم שלום", "tab\tline\n", "e\u0301"):
        assert templates().from_string("{{ text }}").render(text=text) == text


# --- on screens ---


TALLEST = "Math.max(0, ...[...document.querySelectorAll('.badge')].map(one => one.getBoundingClientRect().height))"


@pytest.mark.parametrize("kind", PAGES)
@pytest.mark.parametrize("text", ["a red cat on a chair", HOSTILE[0], HOSTILE[-1]], ids=["plain", "tags", "long"])
def test_pages_fit_a_phone_and_run_nothing_foreign(browser, tmp_path, kind, text):
    page = tmp_path / "page.html"
    page.write_text(made(kind, text, tmp_path / "run"), "utf-8")
    for width in (360, 1280):
        browser.resize(width, 800)
        browser.open(page)
        if kind.startswith("audit"):
            browser.wait("document.querySelector('#rows tbody tr') && !document.querySelector('#rows[aria-busy]')")
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate(TALLEST) < 70  # two lines at most
        assert browser.complaints() == [] and browser.evaluate("document.title").startswith("Cryptomnesia")
        for chart in range(browser.evaluate("document.querySelectorAll('.chart').length")):
            one = f"document.querySelectorAll('.chart')[{chart}].parentElement"
            moves = browser.evaluate(f"{one}.scrollWidth > {one}.clientWidth")
            hint = browser.evaluate(f"getComputedStyle({one}.previousElementSibling).display")
            assert moves == (hint == "block")
