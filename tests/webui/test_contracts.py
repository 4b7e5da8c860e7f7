"""The hooks that the extension defines are those that each program calls, with the arguments that it passes."""

import ast
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import KINDS, ORDINARY
from .host import ROOT, Script

CONTRACTS: dict[str, Any] = json.loads((Path(__file__).with_name("contracts.json")).read_text("utf-8"))
NOT_CALLED = {"sdnext": {"process_before_every_sampling"}}  # where the pipeline itself is guarded
OF_PAGES = {"title", "show", "ui", "after_component"}


def hooks(script: Any) -> dict[str, Any]:
    return {name: member for name, member in vars(type(script)).items() if inspect.isfunction(member)}


@pytest.mark.parametrize("program", sorted(CONTRACTS))
def test_every_hook_is_known_and_takes_what_it_is_given(start: Any, program: str):
    kind = program if program in KINDS else "a1111"
    known = CONTRACTS[program]["hooks"]
    defined = hooks(start(kind).script)
    assert {"process", "process_batch", "postprocess_batch_list", "postprocess", "postprocess_image"} <= set(defined)
    for name in set(defined) - {"after_component"}:
        if known.get(name) is None:
            assert name in NOT_CALLED.get(program, set()), f"{program} has no {name}"
            continue
        given = [argument for argument in known[name] if not argument.startswith("*")]
        filled: dict[str, Any] = {}
        for caller, hook, arguments in CONTRACTS[program]["order"]:
            if hook == name and caller != "sample":
                filled |= dict.fromkeys(argument for argument in arguments if argument != "p")
        extra = ["an argument of the accordion"] if "*args" in known[name] else []
        inspect.signature(defined[name]).bind(*given, *extra, **filled)


@pytest.mark.parametrize("kind", KINDS)
def test_the_small_host_calls_hooks_as_the_program_does(start: Any, tmp_path: Path, kind: str):
    from .host import Processing

    host = start(kind)
    p = Processing(host, ORDINARY, tmp_path, ({"policy": "warn"},), enable_hr=kind != "sdnext")
    host.run(p)
    assert not host.errors
    recorded = [(caller, hook) for caller, hook, _ in CONTRACTS[kind]["order"]]
    called = [(caller, hook) for caller, hook, _ in host.log]
    assert set(called) - set(recorded) <= {("process_images_inner", "postprocess_image")}
    inner = [hook for caller, hook in recorded if caller == "process_images_inner"]
    order = [hook for caller, hook in called if caller == "process_images_inner" and hook in inner]
    assert order == [hook for hook in inner if hook in order]
    told = {(caller, hook): arguments for caller, hook, arguments in CONTRACTS[kind]["order"]}
    for caller, hook, arguments in host.log:
        # images go along by position there
        wanted = set(told.get((caller, hook), arguments)) - {"p"}
        assert set(arguments) - {"images"} == wanted, hook


@pytest.mark.parametrize("program", sorted(CONTRACTS))
def test_every_callback_is_known(start: Any, program: str):
    registered = set(start("a1111").callbacks)
    assert registered == {"on_ui_settings", "on_before_ui", "on_image_saved"}
    assert registered <= set(CONTRACTS[program]["callbacks"])
    assert {"p", "filename"} <= set(CONTRACTS[program]["ImageSaveParams"])


def test_what_the_glue_asks_of_a_host_is_in_the_contracts():
    assert "process_images" in vars(Script)
    for program in ("a1111", "forge"):
        assert CONTRACTS[program]["hooks"]["process_before_every_sampling"]
    asked = CONTRACTS["forge"]["sampling"]
    assert asked["calc_cond_uncond_batch"][:6] == ["model", "cond", "uncond", "x_in", "timestep", "model_options"]
    assert asked["sampling_prepare"] == ["unet", "x"] and asked["compile_conditions"] == ["cond"]


def test_loading_needs_no_web_framework_and_no_diffusers():
    """The glue is imported in a Python that has the library's own needs, and a web UI's modules as stand-ins."""
    code = """
import sys, types
sys.path.insert(0, %r)
for name in ("gradio", "diffusers", "transformers"):
    sys.modules[name] = None
root = types.ModuleType("modules"); root.__path__ = []
scripts, callbacks = types.ModuleType("modules.scripts"), types.ModuleType("modules.script_callbacks")
scripts.Script, scripts.AlwaysVisible = object, object()
for name in ("on_ui_settings", "on_before_ui", "on_image_saved"):
    setattr(callbacks, name, lambda call: None)
root.scripts, root.script_callbacks = scripts, callbacks
sys.modules |= {"modules": root, "modules.scripts": scripts, "modules.script_callbacks": callbacks}
exec(open(%r).read())
import cryptomnesia
print(cryptomnesia.__file__)
"""
    script = str(ROOT / "scripts" / "cryptomnesia_webui.py")
    command = [sys.executable, "-c", code % (str(ROOT), script)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == ROOT / "guard" / "__init__.py"


def test_the_script_holds_hooks_only_and_modules_of_the_ui_come_late():
    lines = (ROOT / "scripts" / "cryptomnesia_webui.py").read_text("utf-8").splitlines()
    assert len(lines) < 110
    for path in (ROOT / "cryptomnesia_webui").glob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not [name for name in names if re.match(r"modules|gradio|backend|ldm|torchvision", name)], path.name


def test_metadata_names_the_script():
    import configparser

    config = configparser.ConfigParser()
    config.read(ROOT / "metadata.ini", "utf-8")
    assert config["Extension"]["Name"] == "cryptomnesia"
    assert [name for name in config.sections() if name.startswith("scripts/")] == ["scripts/cryptomnesia_webui.py"]
    assert "sd-dynamic-prompts" in config["scripts/cryptomnesia_webui.py"]["After"]
