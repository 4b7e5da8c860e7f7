"""What a guard writes beside an image of its pipeline."""

import diffusers
import pytest

from cryptomnesia import Guard
from cryptomnesia.errors import InputError
from cryptomnesia.sidecar import verify
from cryptomnesia.sidecar.pipelines import generation_of

from . import guarded, pipelines, toy
from .provenance import document


def test_a_guard_saves_what_its_pipeline_made(tmp_path):
    calibration = guarded.calibration("sd1")
    guard = Guard(pipelines.build("sd1"), calibration)
    out = guarded.attached(guard, "a cat", output_type="np")
    report = out.memorization[0]
    guard.save(out.images[0], tmp_path / "a.png", report, seed=0, sampling={"steps": 2}, prompts="hash")
    assert verify(tmp_path / "a.png").matches
    said = document(tmp_path / "a.png")["predicate"]
    assert said["generator"]["host"] == f"diffusers {diffusers.__version__}"
    name = "StableDiffusionPipeline"
    model = {"role": "model", "name": name, "sha256": None, "fingerprint": guard.denoiser.fingerprint}
    assert said["models"] == [model]
    assert said["sampling"] == {"pipeline": name, "scheduler": "DDIMScheduler", "steps": 2}
    assert (said["seed"], said["check"]["verdict"]) == ("0", report.verdict)
    assert said["check"]["threshold"] == calibration.threshold
    assert said["check"]["benign_prompts"] == calibration.n
    assert "a cat" not in str(said)


def test_a_guard_of_a_bare_denoiser_knows_no_pipeline(tmp_path):
    with pytest.raises(InputError, match="Generation"):
        Guard(toy.linear()).save(None, tmp_path / "a.png", None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("someone/some-model", "someone/some-model"),
        ("/home/me/models/mine", "mine"),
        ("C:\\Users\\me\\mine", "mine"),
        ("../mine", "mine"),
        ("", "Pipe"),
    ],
)
def test_models_are_named_without_the_users_folders(path, name):
    class Pipe:
        name_or_path = path
        scheduler = None

        def get_active_adapters(self):
            return ["style"]

    models = generation_of(Pipe()).models
    assert [model["name"] for model in models] == [name, "style"]
