"""A ComfyUI node pack for tests: tiny models and their conditions inside real prompts."""

import importlib.util
import sys
import time
from pathlib import Path

import torch
from comfy_api.latest import ComfyExtension, io


def beside(name: str):
    """A module of the folder above, by its place: ComfyUI has a package called tests, too."""
    place = Path(__file__).resolve().parent.parent / f"{name}.py"
    known = f"{__name__}.{name}"
    spec = importlib.util.spec_from_file_location(known, place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[known] = module
    spec.loader.exec_module(module)
    return module


beside("networks")  # which the models are built from
models = beside("models")
kinds = list(models.KINDS)


class TestModel(io.ComfyNode):
    __test__ = False  # not pytest's

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestModel",
            category="tests",
            inputs=[io.Combo.Input("kind", options=kinds), io.Int.Input("weights", default=0, min=0)],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, kind, weights):
        return io.NodeOutput(*models.build(kind, weights))


class TestConditioning(io.ComfyNode):
    __test__ = False

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestConditioning",
            category="tests",
            inputs=[
                io.Combo.Input("kind", options=kinds),
                io.Int.Input("number", default=0, min=0),
                io.Int.Input("rows", default=1, min=1, optional=True),
                io.Int.Input("tokens", default=8, min=1, optional=True),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, kind, number, rows=1, tokens=8):
        return io.NodeOutput(models.conditioning(kind, number, rows, tokens))


class TestLatent(io.ComfyNode):
    __test__ = False

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestLatent",
            category="tests",
            inputs=[
                io.Combo.Input("kind", options=kinds),
                io.Int.Input("rows", default=1, min=1, optional=True),
                io.Int.Input("size", default=0, min=0, optional=True),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, kind, rows=1, size=0):
        return io.NodeOutput(models.latent(kind, rows, size))


class TestControlNet(io.ComfyNode):
    """A ControlNet of ComfyUI's own code with random weights, in the shape of a model's network."""

    __test__ = False

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestControlNet",
            category="tests",
            inputs=[io.Model.Input("model")],
            outputs=[io.ControlNet.Output()],
        )

    @classmethod
    def execute(cls, model):
        return io.NodeOutput(models.control_net(model))


class TestKeep(io.ComfyNode):
    """An output node for anything: a prompt needs one, and its input stays to be read."""

    __test__ = False

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestKeep",
            category="tests",
            inputs=[io.AnyType.Input("value")],
            outputs=[io.AnyType.Output()],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, value):
        return io.NodeOutput(value)


class TestSlow(io.ComfyNode):
    """Makes each model call of a sampler take a while, so that a test can interrupt it."""

    __test__ = False

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestSlow",
            category="tests",
            inputs=[io.Model.Input("model"), io.Float.Input("seconds", default=0.2, min=0.0, step=0.01)],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, seconds):
        def slow(apply_model, args):
            time.sleep(seconds)
            return apply_model(args["input"], args["timestep"], **args["c"])

        model = model.clone()
        model.set_model_unet_function_wrapper(slow)
        return io.NodeOutput(model)


class TestFail(io.ComfyNode):
    __test__ = False

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestFail",
            category="tests",
            inputs=[io.String.Input("message"), io.Latent.Input("latent", optional=True)],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, message, latent=None):
        raise RuntimeError(message if torch.is_inference_mode_enabled() else "no inference mode")


class TestPack(ComfyExtension):
    __test__ = False

    async def get_node_list(self):
        return [TestModel, TestConditioning, TestLatent, TestControlNet, TestKeep, TestSlow, TestFail]


async def comfy_entrypoint():
    return TestPack()
