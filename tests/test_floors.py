"""Imports go down, floor by floor, and never in a circle: read from the sources, also those under TYPE_CHECKING."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUARD = ROOT / "guard"

# From the ground up. A room may import what lies below it, and nothing of a neighbour on its own floor; single
# modules are too small to be rooms, and may use each other as long as nothing circles.
FLOORS = (
    "errors envelope printable prompt_text finite files tensors strict_json images image_codes pixels drawing "
    "containers version memory own_calls progress questions false_discovery two_samples comparability "
    "run_folder",
    "levels condition branches reference identity denoiser protocols cost",
    "adapters signals prompts",
    "calibration calibration_file calibration_misfit calibration_run calibration_source calibration_store combination "
    "expectation known known_run report verdict image_model encoders",
    "mitigation sidecar",
    "attached localization attribution membership lineage similarity monitoring",
    "lora",
    "guard",
    "pages",
    "audit demo",
    "benchmark extraction",
    "commands",
    "cli",
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms.split()}
SMALL = {room for room in FLOOR if (GUARD / f"{room}.py").exists()}
PLOTS = {"plots", "overlay"}  # a result draws itself, and its picture names its type


def named(path: Path) -> str:
    """A file's module within guard, "" for the package itself."""
    parts = path.relative_to(GUARD).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {named(path): path for path in sorted(GUARD.rglob("*.py"))}


def imported(module: str) -> set[str]:
    """The modules of guard that a module names in an import, wherever it stands."""
    path = MODULES[module]
    package = path.relative_to(GUARD).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            source = ".".join(part for part in base if part)
            for name in node.names:
                inner = f"{source}.{name.name}" if source else name.name
                found.add(inner if inner in MODULES else source)
    return found & set(MODULES) - {module, ""}  # the package is a door: it names all, and is no room


ARROWS = {module: imported(module) for module in MODULES}


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_module_stands_on_a_floor() -> None:
    assert {room(module) for module in MODULES} - {""} == set(FLOOR)


@pytest.mark.parametrize("module", sorted(set(MODULES) - {""}))
def test_imports_only_go_down(module: str) -> None:
    upward = [other for other in ARROWS[module] if other and FLOOR[room(other)] > FLOOR[room(module)]]
    beside = [
        other
        for other in ARROWS[module]
        if other
        and room(other) != room(module)
        and FLOOR[room(other)] == FLOOR[room(module)]
        and not {room(other), room(module)} <= SMALL
    ]
    assert not upward and not beside


def test_nothing_imports_in_a_circle() -> None:
    circles = [
        sorted(circle) for circle in reached() if len(circle) > 1 and not {m.split(".")[-1] for m in circle} & PLOTS
    ]
    assert not circles


def reached() -> list[set[str]]:
    """Groups of modules that reach each other."""
    beyond = {module: set(arrows) for module, arrows in ARROWS.items()}
    for middle in beyond:
        for module in beyond:
            if middle in beyond[module]:
                beyond[module] |= beyond[middle]
    groups: list[set[str]] = []
    for module in beyond:
        if module in beyond[module] and not any(module in group for group in groups):
            groups.append({other for other in beyond[module] if module in beyond[other]})
    return groups


def test_a_circle_with_a_plot_is_a_pair() -> None:
    assert all(len(group) == 2 for group in reached())


@pytest.mark.parametrize("folder", ["benchmarks", "nodes", "tests", "training"])
def test_the_library_knows_nothing_of_what_is_built_on_it(folder: str) -> None:
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert folder not in {name.split(".")[0] for name in names}, module
