"""Links of README, docs/ and their kin lead somewhere, and the site has every page; without building it."""

import importlib
import json
import re
from pathlib import Path

import pytest

from ..helpers.snippets import ROOT, documents

PAGES = [*documents(), *sorted((ROOT / "docs" / "api").glob("*.md"))]
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_MEMBER = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)


def prose(path: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Of a page's headings, where GitHub and the site agree: words and single hyphens."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for link in _LINK.findall(prose(page)):
        assert not link.startswith("/"), f"{link}: write it from the page's own place"
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if ROOT / "docs" in page.parents:
            assert ROOT / "docs" in target.parents, f"{link}: the site holds docs/ only; name the file without a link"
        assert not anchor or anchor in anchors(target), link


def test_the_site_has_every_page_and_no_other():
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    listed = re.findall(r": ([\w/-]+\.md)$", text[text.index("\nnav:") :], re.MULTILINE)
    assert sorted(listed) == sorted(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "api").glob("*.md")), ids=lambda page: page.stem)
def test_what_the_api_pages_show_is_there(page: Path):
    names = _MEMBER.findall(page.read_text("utf-8"))
    assert names
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            module, _, member = name.rpartition(".")
            assert hasattr(importlib.import_module(module), member), name


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200


def test_every_node_and_command_has_a_line():
    from cryptomnesia.questions import QUESTIONS

    nodes = [page.read_text("utf-8").partition("\n")[0][2:] for page in (ROOT / "web" / "docs").glob("*.md")]
    shown = (ROOT / "docs" / "comfyui.md").read_text("utf-8")
    assert [name for name in nodes if f"\n| {name} |" not in shown] == []
    named = [question.command for question in QUESTIONS]
    told = " ".join(path.read_text("utf-8") for path in documents())
    assert [name for name in named if f"cryptomnesia {name}" not in told and f"`{name}`" not in told] == []
    templates = {path.stem for path in (ROOT / "workflows").glob("*.json")}
    listed = shown.partition("\n## Templates\n")[2].partition("\n## ")[0]
    assert templates == set(re.findall(r"^\| (\w[^|]*[a-z]) \| [a-z]", listed, re.MULTILINE)) - {"template"}


def test_recites_is_a_word_that_the_glossary_alone_explains():
    """Users are told of memorized and of reproduced; the older word stands in names of stored results only."""
    shown = [
        path
        for folder in ("web", "workflows")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".md", ".json")
    ]
    texts = {path: path.read_text("utf-8") for path in (*documents(), *shown)}
    said = {path.name: len(re.findall(r"\brecit", text, re.IGNORECASE)) for path, text in texts.items()}
    assert {name: times for name, times in said.items() if times} == {"how-it-works.md": 1, "CHANGELOG.md": 1}


def test_every_stored_result_names_the_script_that_made_it():
    """In benchmarks/README.md, as the result itself does."""
    rows = re.findall(
        r"^\| `(\w+)\.json` \| `((?:benchmarks|training)\.\w+)",
        (ROOT / "benchmarks" / "README.md").read_text("utf-8"),
        re.M,
    )
    results = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    assert sorted(name for name, _ in rows) == [path.stem for path in results]
    for name, script in rows:
        about = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))["about"]
        assert about["command"].split()[2] == script, name


def test_the_citation_and_the_changelog_name_this_version():
    from cryptomnesia import __version__

    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {__version__}\n" in citation and citation.count("\n  - type: ") == 5
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")
