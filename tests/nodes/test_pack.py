"""The pack as a whole: what its nodes look like, what it needs, and that it leaves ComfyUI as it is."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from .graphs import BENIGN, demo, keep, links, ours, part, ran, sampler, tiny, with_check
from .harness import Comfy
from .results import node

ROOT = Path(__file__).parents[2]
# Saved workflows name widgets by their place: once released, only add at the end.
NODES = {
    "CryptomnesiaLoadDemoModel": ("checkpoint", "MODEL CLIP VAE"),
    "CryptomnesiaMemorizationCheck": (
        "model clip positive latent draws check_seed calibration alignment",
        "report score p_value is_memorized text",
    ),
    "CryptomnesiaMemorizationGate": ("value report policy", "value text"),
    "CryptomnesiaMemorizationTable": (
        "model clip latent prompts file filename_prefix calibration check_seed",
        "table text csv prompts reports",
    ),
    "CryptomnesiaCompareLoras": (
        "model clip latent prompts lora_1 lora_2 lora_3 lora_4 strengths filename_prefix draws check_seed",
        "table text csv",
    ),
    "CryptomnesiaLoraCheck": (
        "model clip latent lora strengths prompts alpha filename_prefix draws check_seed benign",
        "table text csv memorized",
    ),
    "CryptomnesiaGuardedKSampler": (
        "model clip positive negative latent noise_seed steps cfg sampler_name scheduler denoise policy calibration "
        "unverified fallback check_seed",
        "latent report positive text",
    ),
    "CryptomnesiaGuardedGuider": (
        "model clip positive latent cfg policy calibration unverified fallback check_seed negative",
        "guider report positive text",
    ),
    "CryptomnesiaMemorizationHeatmap": (
        "model clip positive samples images report when probes check_seed",
        "overlay mask map share report text",
    ),
    "CryptomnesiaMitigateConditioning": (
        "model clip positive latent when calibration check_seed",
        "positive report text",
    ),
    "CryptomnesiaRewritePrompt": (
        "model clip text latent when calibration check_seed positive",
        "text positive changes report",
    ),
    "CryptomnesiaGuardedNoise": (
        "model clip positive latent noise_seed candidates calibration",
        "noise seed text",
    ),
    "CryptomnesiaCalibrateModel": (
        "model clip latent name draws alpha prompts check_seed by_words",
        "calibration text",
    ),
    "CryptomnesiaSpectralSignature": ("model clip samples name plan", "signature plot text"),
    "CryptomnesiaSaveSignature": ("signature name", "file"),
    "CryptomnesiaLoadSignature": ("file", "signature plot text"),
    "CryptomnesiaAttributionCandidate": ("model clip vae name images prompts", "candidate"),
    "CryptomnesiaAttributeImage": ("images candidates alpha prompt", "plot decision text finding"),
    "CryptomnesiaCompareReferences": ("images references alpha", "plot kind text finding masks"),
    "CryptomnesiaMembershipEvidence": (
        "model clip vae suspects references size method draws alpha suspect_prompts reference_prompts features",
        "plot verdict text finding",
    ),
    "CryptomnesiaLineagePoolModel": ("name images prompts", "pool_model"),
    "CryptomnesiaModelLineage": ("images pool prompts clip_vision", "plot parent text finding"),
    "CryptomnesiaSaveImage": ("images filename_prefix report prompts sign findings image_seed embed", "paths"),
    "CryptomnesiaVerifyProvenance": ("paths folder", "matches text"),
}


def schemas(comfy: Comfy) -> dict[str, Any]:
    root = part(comfy, "nodes.extension").__package__
    mappings = comfy.nodes.NODE_CLASS_MAPPINGS
    return {name: found.define_schema() for name, found in mappings.items() if found.__module__.startswith(root)}


def test_inputs_and_outputs_are_in_their_places(comfy: Comfy):
    found = {
        name: (
            " ".join(value.id for value in schema.inputs),
            " ".join(value.display_name or value.io_type for value in schema.outputs),
        )
        for name, schema in schemas(comfy).items()
    }
    assert found == NODES
    assert all(schema.node_id == name for name, schema in schemas(comfy).items())


@pytest.mark.parametrize("name", NODES)
def test_every_node_explains_itself(comfy: Comfy, name: str):
    schema = schemas(comfy)[name]
    assert schema.category == "Cryptomnesia" and len(schema.description) > 40 and schema.display_name
    assert "cryptomnesia" in schema.search_aliases or name == "CryptomnesiaLoadDemoModel"
    for value in [*schema.inputs, *schema.outputs]:
        assert value.tooltip, value.id
    page = ROOT / "web" / "docs" / f"{name}.md"
    assert page.read_text("utf-8").startswith("#")


def test_the_interface_can_list_them(comfy: Comfy):
    """As the server does for the frontend."""
    for name in NODES:
        info = comfy.nodes.NODE_CLASS_MAPPINGS[name].GET_NODE_INFO_V1()
        assert info["name"] == name and info["category"] == "Cryptomnesia" and info["input"]
    assert comfy.nodes.EXTENSION_WEB_DIRS["cryptomnesia"] == str(comfy.base / "custom_nodes/cryptomnesia/web")


def test_no_widget_is_called_seed(comfy: Comfy):
    """The interface would change it after every run, and checks would never be remembered."""
    names = {value.id for schema in schemas(comfy).values() for value in schema.inputs}
    assert "seed" not in names and "check_seed" in names


@pytest.mark.parametrize("kind", [ImportError, ModuleNotFoundError, "MissingPackage"])
def test_a_node_that_lacks_a_package_is_left_out(comfy: Comfy, monkeypatch, caplog, kind):
    extension = part(comfy, "nodes.extension")
    error = part(comfy, "guard.errors").MissingPackage if kind == "MissingPackage" else kind
    load = extension.import_module

    def lacking(name: str, package: str) -> Any:
        if name == ".save_image":
            raise error("no such package")
        return load(name, package)

    monkeypatch.setattr(extension, "import_module", lacking)
    found = asyncio.run(extension.CryptomnesiaExtension().get_node_list())
    assert {made.define_schema().node_id for made in found} == set(NODES) - {"CryptomnesiaSaveImage"}
    assert any("save image is left out: no such package" in line for line in caplog.messages)


def everything(comfy: Comfy) -> dict[str, Any]:
    """A workflow with each of the nodes but the calibration."""
    prompt = demo(BENIGN)
    words = {key: link for key, link in links(prompt).items() if key != "positive"} | {"text": BENIGN}
    return with_check(comfy, prompt) | {
        "mend": ours(comfy, "MitigateConditioning", **links(prompt) | {"when": "always"}),
        "write": ours(comfy, "RewritePrompt", **words),
        "noise": ours(comfy, "GuardedNoise", **links(prompt) | {"candidates": 2}),
        "gate": node(
            "CryptomnesiaMemorizationGate", value=["mend", 0], report=["check", 0], policy="block unless clear"
        ),
        "sampler": sampler(positive=["gate", 0], seed=["noise", 1]),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["load", 2]),
        "save": ours(comfy, "SaveImage", images=["decode", 0], report=["write", 3], filename_prefix="all"),
        "verify": ours(comfy, "VerifyProvenance", paths=["save", 0]),
    }


def test_neither_diffusers_nor_an_installed_copy_is_needed(comfy: Comfy, monkeypatch: pytest.MonkeyPatch):
    """A second copy of the pack, so that nothing of it was imported before."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("diffusers", "cryptomnesia")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("diffusers", "cryptomnesia", "typer", "sklearn"):
        monkeypatch.setitem(sys.modules, name, None)
    copy = comfy.load_pack(ROOT, "second")
    found = asyncio.run(asyncio.run(copy.comfy_entrypoint()).get_node_list())
    assert len(found) == len(NODES)
    for made in found:
        monkeypatch.setitem(comfy.nodes.NODE_CLASS_MAPPINGS, made.define_schema().node_id, made)
    comfy.fresh()
    result = ran(comfy, everything(comfy))
    assert result.outputs["verify"][0] is True and "/second.nodes." in type(result.outputs["noise"][0]).__module__
    comfy.fresh()


@pytest.mark.parametrize("kind", ["demo", "sdxl", "sd3"])
def test_checking_does_not_change_what_is_sampled(comfy: Comfy, kind: str):
    comfy.fresh()
    prompt = demo(BENIGN) if kind == "demo" else tiny(comfy, kind)
    sampled = prompt | {"sampler": sampler(), "end": keep("sampler")}
    noise = ours(comfy, "GuardedNoise", **links(prompt) | {"candidates": 2})
    before = ran(comfy, sampled).outputs
    ran(comfy, with_check(comfy, prompt, alignment=True) | {"noise": noise, "b": keep("noise", 1)})
    after = ran(comfy, sampled).outputs
    assert before["load"][0] is after["load"][0]
    assert before["sampler"][0]["samples"] is not after["sampler"][0]["samples"]  # made anew
    assert torch.equal(before["sampler"][0]["samples"], after["sampler"][0]["samples"])


def test_a_whole_workflow_leaves_the_global_random_numbers_alone(comfy: Comfy):
    prompt = everything(comfy)
    del prompt["sampler"]  # which sets them itself
    prompt["decode"] = node("EmptyImage", width=8, height=8, batch_size=1, color=0)
    prompt |= {"end": keep("gate"), "seed": keep("noise", 1)}
    states = {}

    def listen(event: Any, data: Any) -> None:
        if event == "executing" and data["node"]:
            states[data["node"]] = torch.get_rng_state()

    comfy.fresh()
    ran(comfy, prompt, on_event=listen)
    assert set(states) >= {"load", "check", "mend", "write", "noise", "gate", "save", "verify"}
    first = next(iter(states.values()))
    assert all(torch.equal(first, state) for state in states.values()), list(states)
