"""Pipelines exported as ONNX files, in the layout of optimum."""

import json
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

OPSET = 17


class UNet(nn.Module):
    def __init__(self, network: Any):
        super().__init__()
        self.network = network

    def forward(self, sample, timestep, text, *added):
        known = dict(zip(("text_embeds", "time_ids"), added, strict=True)) if added else None
        return self.network(sample, timestep, text, added_cond_kwargs=known, return_dict=False)[0]


class Text(nn.Module):
    """All outputs, as optimum exports them: the projection or the last hidden state first."""

    def __init__(self, network: Any):
        super().__init__()
        self.network = network

    def forward(self, ids):
        found = self.network(ids, output_hidden_states=True)
        return (found[0], *found.hidden_states)


class Encoder(nn.Module):
    def __init__(self, network: Any):
        super().__init__()
        self.network = network

    def forward(self, sample):
        return self.network.encode(sample).latent_dist.parameters


class Decoder(nn.Module):
    def __init__(self, network: Any):
        super().__init__()
        self.network = network

    def forward(self, latent):
        return self.network.decode(latent, return_dict=False)[0]


def export(pipe: Any, folder: Path) -> Path:
    """The pipeline as a folder of ONNX files; all axes but channels are dynamic."""
    index = {name: [None, type(part).__name__] for name, part in pipe.components.items() if part is not None}
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": f"ORT{type(pipe).__name__}", **index}))
    pipe.scheduler.save_pretrained(folder / "scheduler")
    for name in ("tokenizer", "tokenizer_2"):
        if getattr(pipe, name, None) is not None:
            getattr(pipe, name).save_pretrained(folder / name)
    for name in ("text_encoder", "text_encoder_2"):
        encoder = getattr(pipe, name, None)
        if encoder is not None:
            states = [f"hidden_states.{i}" for i in range(encoder.config.num_hidden_layers + 1)]
            ids = torch.zeros(2, pipe.tokenizer.model_max_length, dtype=torch.long)
            _write(folder / name, Text(encoder), [ids], ["input_ids"], ["first", *states], encoder.config)
    export_unet(pipe, folder / "unet")
    channels, side = pipe.unet.config.in_channels, pipe.unet.config.sample_size
    pixels = torch.rand(2, 3, side * pipe.vae_scale_factor, side * pipe.vae_scale_factor)
    latent = torch.rand(2, channels, side, side)
    _write(folder / "vae_encoder", Encoder(pipe.vae), [pixels], ["sample"], ["latent_parameters"], pipe.vae.config)
    _write(folder / "vae_decoder", Decoder(pipe.vae), [latent], ["latent_sample"], ["sample"], pipe.vae.config)
    return folder


def export_unet(pipe: Any, folder: Path, time: Tensor | None = None) -> None:
    """The UNet alone, in its own dtype; `time` stands for timesteps, by default one integer per row."""
    config = pipe.unet.config
    sample = torch.rand(2, config.in_channels, config.sample_size, config.sample_size).to(pipe.unet.dtype)
    time = torch.tensor([9, 5]) if time is None else time
    text = torch.rand(2, pipe.tokenizer.model_max_length, config.cross_attention_dim).to(pipe.unet.dtype)
    values, names = [sample, time, text], ["sample", "timestep", "encoder_hidden_states"]
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        values, names = [*values, torch.rand(2, pooled), torch.rand(2, 6)], [*names, "text_embeds", "time_ids"]
    _write(folder, UNet(pipe.unet), values, names, ["out_sample"], config)


def _write(
    folder: Path, network: Any, values: list[Tensor], inputs: list[str], outputs: list[str], config: Any
) -> None:
    axes = {
        name: {axis: f"{name}_{axis}" for axis in range(value.ndim) if axis != 1 or value.ndim == 3}
        for name, value in zip(inputs, values, strict=True)
    }
    folder.mkdir(exist_ok=True)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            tuple(values),
            str(folder / "model.onnx"),
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    text = config.to_json_string() if hasattr(config, "to_json_string") else json.dumps(dict(config))
    (folder / "config.json").write_text(text)


def answer_nan(file: Path, **inputs: list[Any]) -> None:
    """Writes a network that answers its first input times NaN; inputs by name, with their shapes."""
    _write_node(file, "Mul", torch.tensor([float("nan")]), inputs)


def answer_too_much(file: Path, **inputs: list[Any]) -> None:
    """Writes one that answers more than any memory holds."""
    _write_node(file, "Expand", torch.tensor([1, 1, 2**24, 2**24]), inputs)


def _write_node(file: Path, operator: str, constant: Tensor, inputs: dict[str, list[Any]]) -> None:
    """Writes the network operator(first input, constant)."""
    helper, first = onnx.helper, next(iter(inputs))
    made = helper.make_graph(
        [helper.make_node(operator, [first, "constant"], ["out"])],
        "graph",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, inputs[first])],
        [onnx.numpy_helper.from_array(constant.numpy(), "constant")],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8), file)


def move_outside(file: Path, name: str) -> Path:
    """Moves the weights of an ONNX file into another beside it; returns that."""
    model = onnx.load(file)
    onnx.save(model, file, save_as_external_data=True, location=name, size_threshold=0)
    return file.with_name(name)


def set_opset(file: Path, version: int) -> None:
    model = onnx.load(file)
    model.opset_import[0].version = version
    onnx.save(model, file)
