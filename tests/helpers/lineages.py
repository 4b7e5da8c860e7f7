"""Images of made-up models, and ONNX files of made-up encoders, for the tests of lineage."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"ada": (200, 40, 40), "bo": (40, 190, 60), "cy": (40, 60, 200), "dot": (220, 210, 40)}


def pictures(colour: Sequence[float], count: int = 30, seed: int = 0, size: tuple[int, int] = (64, 64)) -> list:
    """A blurred spot of about that colour, its place and shade another each time; Pillow images."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[1], : size[0]]
    found = []
    for _ in range(count):
        x, y, wide = rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.3)
        away = ((rows / size[1] - y) ** 2 + (columns / size[0] - x) ** 2) / wide**2
        spot = np.exp(-away)[..., None] * (np.asarray(colour) + rng.normal(0, 12, 3)) + rng.normal(
            0, 3, (*away.shape, 3)
        )
        found.append(Image.fromarray(spot.clip(0, 255).astype(np.uint8)))
    return found


def folder(place: Path, images: Sequence[Image.Image]) -> Path:
    """The images as files."""
    place.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        image.save(place / f"{number:03d}.png")
    return place


def encoder_file(
    place: Path,
    shape: Sequence[int | str] = ("n", 3, 32, 32),
    *,
    inputs: Sequence[str] = ("pixels",),
    factor: float = 1.0,
    kind: str = "mean",
    metadata: dict[str, str] | None = None,
) -> Path:
    """An ONNX file that answers with the mean of each channel times a factor: as (B, 3), as a map, or as one number."""
    from onnx import TensorProto, helper, numpy_helper, save

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name in inputs]
    output = helper.make_tensor_value_info("found", TensorProto.FLOAT, None)
    scale = numpy_helper.from_array(np.array(factor, np.float32), "factor")
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    nodes = {
        "mean": [
            helper.make_node("Mul", [inputs[0], "factor"], ["scaled"]),
            helper.make_node("ReduceMean", ["scaled", "axes"], ["found"], keepdims=0),
        ],
        "map": [helper.make_node("Mul", [inputs[0], "factor"], ["found"])],
        "number": [
            helper.make_node("Mul", [inputs[0], "factor"], ["scaled"]),
            helper.make_node("ReduceMean", ["scaled"], ["found"], keepdims=0),
        ],
    }[kind]
    graph = helper.make_graph(nodes, "encoder", values, [output], [scale, axes] if kind == "mean" else [scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    save(model, place)
    return place
