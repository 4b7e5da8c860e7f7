"""Encoders: the one that ships, ONNX files of all sorts, CLIP folders, several scales."""

import json

import numpy as np
import pytest
import torch

from cryptomnesia.encoders import BUILT_IN, CLIP_MEAN, CLIP_STD
from cryptomnesia.errors import InputError, NonFiniteError
from cryptomnesia.lineage import ClipEncoder, MultiScale, OnnxEncoder, open_encoder
from training.demo.rendering import FONT_PATH

from ..helpers.lineages import encoder_file

PLAIN = {"mean": "0 0 0", "std": "1 1 1"}


def images(count: int = 5, height: int = 64, width: int = 64) -> list[torch.Tensor]:
    return list(torch.rand(count, 1, 3, height, width, generator=torch.Generator().manual_seed(3)))


def test_the_exported_encoder_equals_its_torch_original():
    from training.encoder import load

    network, some = load(BUILT_IN.with_suffix(".safetensors")), images(7)
    with torch.no_grad():
        expected = network(torch.cat(some)).numpy()
    found = open_encoder().encode(some)
    assert found.shape == (7, 336) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.sqrt(3), atol=1e-5)


def test_the_exported_encoder_is_small_and_names_no_folder():
    from pathlib import Path

    data = BUILT_IN.read_bytes()
    assert len(data) <= 4 << 20
    assert str(Path.home()).encode() not in data and b"site-packages" not in data


def test_training_makes_an_encoder(tmp_path):
    pytest.importorskip("onnxscript")
    from training import encoder as train

    torch.manual_seed(0)
    network, a = train.Network(), torch.randn(8, 192)
    near, far = train.contrast(a, a + 0.01 * torch.randn(8, 192)), train.contrast(a, torch.randn(8, 192))
    assert near < far
    train.save(network.eval(), tmp_path / "own.onnx")
    some = images(3)
    with torch.no_grad():
        expected = train.load(tmp_path / "own.safetensors")(torch.cat(some)).numpy()
    np.testing.assert_allclose(OnnxEncoder(tmp_path / "own.onnx").encode(some), expected, atol=1e-4)


@pytest.mark.skipif(not FONT_PATH.exists(), reason="the training images need the Noto Color Emoji font")
def test_two_views_show_the_same_images(monkeypatch):
    from training import encoder as train

    monkeypatch.setattr(train, "BATCH", 8)
    a, b = train.Views(0).batch()
    assert a.shape == b.shape == (8, 3, 64, 64) and a.min() >= 0 and a.max() <= 1
    apart = (a[:, None] - b[None]).square().mean((2, 3, 4))
    assert (apart.diagonal() < apart.mean(1)).all() and (apart.diagonal() > 1e-5).all()
    assert torch.equal(a, train.Views(0).batch()[0])
    one, two = (train.train(steps).state_dict() for steps in (1, 2))
    assert one.keys() == two.keys() and any(not torch.equal(one[name], two[name]) for name in one)


def test_a_fixed_size_is_met_and_a_free_one_is_chosen(tmp_path):
    fixed = OnnxEncoder(encoder_file(tmp_path / "a.onnx", ("n", 3, 32, 48), metadata=PLAIN))
    assert fixed.size == (32, 48)
    free = encoder_file(tmp_path / "b.onnx", ("n", 3, "h", "w"), metadata=PLAIN)
    assert OnnxEncoder(free).size == (224, 224) and OnnxEncoder(free, (64, 96)).size == (64, 96)
    some = images(2, 64, 96)
    means = torch.cat(some).mean((2, 3)).numpy()
    np.testing.assert_allclose(OnnxEncoder(free, (64, 96)).encode(some), means, atol=1e-5)
    assert fixed.encode([*some, *images(1, 100, 40)]).shape == (3, 3)  # mixed sizes
    with pytest.raises(InputError, match="32x48 pixels only"):
        OnnxEncoder(tmp_path / "a.onnx", (64, 64))


@pytest.mark.parametrize("rows", [1, 4])
def test_a_fixed_number_of_rows_is_filled_up(tmp_path, rows):
    fixed = OnnxEncoder(encoder_file(tmp_path / "a.onnx", (rows, 3, 64, 64), metadata=PLAIN))
    some = images(6)
    np.testing.assert_allclose(fixed.encode(some), torch.cat(some).mean((2, 3)).numpy(), atol=1e-5)


def test_maps_are_averaged_and_pixels_normalised(tmp_path):
    some = images(2)
    means = torch.cat(some).mean((2, 3)).numpy()
    as_clip = OnnxEncoder(encoder_file(tmp_path / "a.onnx", ("n", 3, 64, 64), kind="map"))
    np.testing.assert_allclose(as_clip.encode(some), (means - CLIP_MEAN) / CLIP_STD, atol=1e-5)
    own = OnnxEncoder(encoder_file(tmp_path / "b.onnx", ("n", 3, 64, 64), metadata={"mean": "1 1 1", "std": "2 2 2"}))
    np.testing.assert_allclose(own.encode(some), (means - 1) / 2, atol=1e-5)


def test_clip_folders(tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    model = CLIPVisionModelWithProjection(config).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    some = images(3, 32, 32)
    with torch.no_grad():
        expected = model((torch.cat(some) - 0.5) / 0.25).image_embeds.numpy()
    encoder = open_encoder(tmp_path)
    assert encoder.size == (32, 32)
    np.testing.assert_allclose(encoder.encode(some), expected, atol=1e-5)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        ClipEncoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="'bert', no CLIP"):
        open_encoder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="no config that can be read"):
        open_encoder(tmp_path)


def test_scales_are_tiles_of_the_enlarged_image(tmp_path):
    encoder = OnnxEncoder(encoder_file(tmp_path / "a.onnx", ("n", 3, 32, 32), metadata=PLAIN))
    some = images(2, 64, 64)
    both = MultiScale(encoder, (1, 2)).encode(some)
    assert both.shape == (2, 6)
    np.testing.assert_allclose(both[:, :3], encoder.encode(some))
    tiles = [image[..., i : i + 32, j : j + 32] for image in some for i in (0, 32) for j in (0, 32)]
    np.testing.assert_allclose(both[:, 3:], encoder.encode(tiles).reshape(2, 4, 3).mean(1), atol=1e-6)
    np.testing.assert_allclose(MultiScale(encoder, (1,)).encode(some), encoder.encode(some))
    assert MultiScale(encoder).name.endswith("at scales 1, 2")


@pytest.mark.parametrize("scales", [(), (0, 1), (2, 2), (1.5,)])
def test_scales_are_different_whole_numbers(scales):
    with pytest.raises(InputError, match="different positive integers"):
        MultiScale(open_encoder(), scales)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inputs": ("pixel_values", "input_ids")}, "inputs pixel_values, input_ids, where an image encoder has one"),
        ({"shape": ("n", 4, 16, 16)}, "no images"),
        ({"shape": ("n", 3), "kind": "map"}, "no images"),
        ({"metadata": {"mean": "0.5"}}, "to normalise by '0.5', not three numbers"),
    ],
)
def test_onnx_files_with_other_inputs(tmp_path, options, words):
    with pytest.raises(InputError, match=words) as error:
        OnnxEncoder(encoder_file(tmp_path / "a.onnx", **options))
    assert "\n" not in str(error.value)


def test_an_output_that_is_no_embedding(tmp_path):
    with pytest.raises(InputError, match="no embeddings"):
        OnnxEncoder(encoder_file(tmp_path / "a.onnx", kind="number")).encode(images(2))


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_nan_of_an_encoder_is_named(tmp_path, factor):
    encoder = OnnxEncoder(encoder_file(tmp_path / "odd.onnx", factor=factor))
    with pytest.raises(NonFiniteError, match=r"odd\.onnx answered with NaN or infinity"):
        encoder.encode(images(2))


def test_what_is_no_encoder(tmp_path):
    (tmp_path / "torn.onnx").write_bytes(BUILT_IN.read_bytes()[:1000])
    (tmp_path / "empty").mkdir()
    for place, words in (
        ("torn.onnx", "no ONNX model that can be run"),
        ("none.onnx", "there is no encoder"),
        ("weights.pt", "is no encoder"),
        ("empty", r"config\.json cannot be read"),
    ):
        with pytest.raises(InputError, match=words) as error:
            open_encoder(tmp_path / place)
        assert "\n" not in str(error.value)
    own = open_encoder()
    assert open_encoder(own) is own
