"""What ComfyUI, its manager and its registry read beside the code: help pages, lists, settings."""

import ast
import json
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
HOSTS_OWN = {"torch", "torchvision", "torchaudio", "numpy", "pillow", "onnxruntime", "onnxruntime-gpu", "diffusers"}
# each function there gives one input or output
SHARED = {name: ast.parse((ROOT / "nodes" / f"{name}.py").read_text("utf-8")) for name in ("inputs", "outputs")}
UNNAMED = {"Model": "MODEL", "Clip": "CLIP", "Vae": "VAE"}  # how outputs without a name are shown


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def literal(call: ast.Call, name: str, position: int | None = None) -> Any:
    """The value of an argument that is written out."""
    given = next((keyword.value for keyword in call.keywords if keyword.arg == name), None)
    if given is None and position is not None and len(call.args) > position:
        given = call.args[position]
    return ast.literal_eval(given) if isinstance(given, ast.Constant) else None


def schemas() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted((ROOT / "nodes").glob("*.py")):
        for call in calls(ast.parse(path.read_text("utf-8"))):
            if isinstance(call.func, ast.Attribute) and call.func.attr == "Schema":
                yield literal(call, "node_id"), call


def listed(schema: ast.Call, name: str) -> list[ast.expr]:
    found = next((keyword.value for keyword in schema.keywords if keyword.arg == name), None)
    assert isinstance(found, ast.List), f"{name} is written out in the schema"
    return found.elts


def written_out(item: ast.expr) -> ast.Call:
    """The input or output itself, also where a function that several nodes share gives it."""
    assert isinstance(item, ast.Call)
    module, _, shared = ast.unparse(item.func).partition(".")
    if module not in SHARED:
        return item
    function = next(node for node in SHARED[module].body if isinstance(node, ast.FunctionDef) and node.name == shared)
    return next(call for call in calls(function) if re.search(r"[.](In|Out)put$", ast.unparse(call.func)))


def input_name(item: ast.expr) -> str:
    return literal(written_out(item), "id", 0)


def output_name(item: ast.expr) -> str:
    call = written_out(item)
    return literal(call, "display_name") or UNNAMED[ast.unparse(call.func).split(".")[1]]


NODES = dict(schemas())


@pytest.mark.parametrize("node_id", sorted(NODES))
def test_every_node_has_a_help_page_with_all_its_names(node_id: str):
    page = (ROOT / "web" / "docs" / f"{node_id}.md").read_text("utf-8")
    assert page.startswith(f"# {literal(NODES[node_id], 'display_name')}\n")
    before, after = page.split("\n## Outputs\n")
    rows = re.compile(r"^\| `(\w+)` \| \S", re.MULTILINE)
    assert rows.findall(before) == [input_name(item) for item in listed(NODES[node_id], "inputs")]
    assert rows.findall(after) == [output_name(item) for item in listed(NODES[node_id], "outputs")]
    for heading in ("When to use it", "Inputs", "Example"):
        assert f"\n## {heading}\n" in page
    assert re.search(r"\n## .*limits\n", page, re.IGNORECASE)


def test_all_nodes_were_found_and_no_page_is_left_over():
    modules = [path for path in (ROOT / "nodes").glob("*.py") if "\nNODE = " in path.read_text("utf-8")]
    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    assert len(modules) == len(NODES) and pages == set(NODES)
    assert all(node_id.startswith("Cryptomnesia") for node_id in NODES)


@pytest.mark.parametrize("node_id", sorted(NODES))
def test_help_pages_promise_no_more_than_is_known(node_id: str):
    page = (ROOT / "web" / "docs" / f"{node_id}.md").read_text("utf-8")
    assert not re.search(r"\bcopied\b|\bcopy\b|is a member|plagiari|infring|\bstolen\b", page, re.IGNORECASE)
    assert not re.search(r"https?://|/home/|/root/|[A-Z]:\\", page)


def test_requirements_leave_the_hosts_own_alone():
    lines = [line for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines() if line]
    wanted = [line for line in lines if not line.startswith("#")]
    assert wanted, "comments alone need no file"
    # the manager reads line by line: one plain requirement each
    assert all(re.fullmatch(r"[a-z0-9-]+(>=[\d.]+)?", line) for line in wanted)
    assert not {re.split(r"[>=]", line)[0] for line in wanted} & HOSTS_OWN
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert set(wanted) <= {*extras["provenance"], *extras["audit"]}, "the same bounds as in pyproject.toml"


def test_the_registrys_package_leaves_out_what_the_pack_does_not_need():
    lines = (ROOT / ".comfyignore").read_text("utf-8").splitlines()
    left_out = {line.strip("/") for line in lines if line.startswith("/")}
    assert {
        "tests",
        "benchmarks",
        "training",
        "docs",
        "install.py",
        "setup.py",
        "scripts",
        "cryptomnesia_webui",
    } <= left_out
    needed = {"guard", "nodes", "web", "workflows", "__init__.py", "pyproject.toml", "requirements.txt"}
    assert not (needed | {"README.md", "LICENSE"}) & left_out
    # without a leading slash a pattern holds at any depth
    assert all(re.match(r"[.*_]", line) for line in lines if line and line[0] not in "/#")


def tracked(*patterns: str) -> set[str]:
    """What git keeps, or of that what the patterns of a file leave out."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    if not patterns:
        return set(filter(None, listed.decode().split("\0")))
    command = ["git", "-c", f"core.excludesFile={patterns[0]}", "check-ignore", "--no-index", "-z", "--stdin"]
    done = subprocess.run(command, cwd=ROOT, input=listed, capture_output=True)
    return set(filter(None, done.stdout.decode().split("\0")))


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone: what git keeps is not known")
def test_the_registrys_package_is_whole_and_not_too_large():
    kept = tracked() - tracked(str(ROOT / ".comfyignore"))
    assert not {name for name in kept if name.partition("/")[0] in ("tests", "benchmarks", "training", "docs", ".ci")}
    for folder in ("guard", "nodes", "web", "workflows", "locales"):
        assert {name for name in tracked() if name.startswith(f"{folder}/")} <= kept, folder
    packed = sum(len(zlib.compress((ROOT / name).read_bytes(), 1)) + len(name) + 150 for name in kept)
    assert packed < 27_000_000


def test_the_pages_part_is_small_and_makes_no_html():
    scripts = list((ROOT / "web" / "js").glob("*.js"))
    assert scripts and sum(path.stat().st_size for path in scripts) < 30_000
    for path in scripts:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", path.read_text("utf-8"))


def test_settings_for_the_registry():
    settings, project = PYPROJECT["tool"]["comfy"], PYPROJECT["project"]
    assert settings.keys() <= {"PublisherId", "DisplayName", "Icon", "Banner", "Models", "includes", "requires-comfyui"}
    assert settings["PublisherId"] and settings["DisplayName"] == "Cryptomnesia"
    assert re.fullmatch(r">=\d+\.\d+\.\d+", settings["requires-comfyui"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,99}", project["name"]) and "comfy" not in project["name"]
    # one classifier of these kinds that the registry does not know, and it takes none
    places = ("Microsoft", "POSIX", "MacOS", "OS Independent")
    for classifier in project["classifiers"]:
        kind, _, value = classifier.partition(" :: ")
        assert kind != "Operating System" or value.startswith(places)
        assert kind != "Environment"


@pytest.mark.parametrize("folder", ["nodes", "guard", "scripts", "cryptomnesia_webui", "tests", "."])
def test_nothing_that_the_registry_rejects(folder: str):
    paths = [*(ROOT / folder).glob("*.py")] if folder == "." else [*(ROOT / folder).rglob("*.py")]
    assert paths
    for path in paths:
        tree = ast.parse(path.read_text("utf-8"))
        names = {ast.unparse(call.func) for call in calls(tree)}
        assert not names & {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}, path.name
        imported = {
            alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        imported |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & {"pip", "marshal", "pickle"}, path.name
        if folder in ("nodes", "guard"):
            assert "subprocess" not in imported, f"{path.name}: a pack starts no programs, pip least of all"


def test_templates_and_locales_are_json():
    for path in (*ROOT.glob("workflows/*.json"), *ROOT.glob("locales/*/*.json")):
        json.loads(path.read_text("utf-8"))
