"""What a guard writes beside an image of its pipeline."""

import diffusers
import pytest
import torch

from cryptomnesia import Guard
from cryptomnesia.errors import InputError
from cryptomnesia.sidecar import verify
from cryptomnesia.sidecar.pipelines import generation_of

from ..helpers import guarded, pipelines, toy
from ..helpers.provenance import document

pytestmark = pytest.mark.filterwarnings("ignore::cryptomnesia.errors.MemorizationWarning")
NAME = "StableDiffusionPipeline"


def test_a_guard_saves_what_its_pipeline_made(tmp_path):
    calibration = guarded.calibration("sd1")
    guard = Guard(pipelines.build("sd1"), calibration)
    out = guarded.attached(guard, "a cat", output_type="np")
    report = out.memorization[0]
    guard.save(out.images[0], tmp_path / "a.png", report, seed=7, sampling={"steps": 3}, prompts="hash")
    assert verify(tmp_path / "a.png").matches
    said = document(tmp_path / "a.png")["predicate"]
    assert said["generator"]["host"] == f"diffusers {diffusers.__version__}"
    model = {"role": "model", "name": NAME, "sha256": None, "fingerprint": guard.denoiser.fingerprint}
    assert said["models"] == [model]
    size = {"guidance_scale": 7.5, "height": 16, "width": 16}
    # what the user says comes before what the guard saw
    assert said["sampling"] == {"pipeline": NAME, "scheduler": "DDIMScheduler", "steps": 3, **size}
    assert (said["seed"], said["check"]["verdict"]) == ("7", report.verdict)
    assert said["check"]["threshold"] == calibration.threshold
    assert said["check"]["benign_prompts"] == calibration.n
    assert "a cat" not in str(said)


def saved(guard, path, image=0, *args, **options):
    out = guarded.attached(guard, *args, output_type="np", **options)
    guard.save(out.images[image], path, out.memorization[image])
    return document(path)["predicate"]


def test_what_the_guard_saw_needs_not_be_said_again(tmp_path):
    guard = Guard(pipelines.build("sd1"), guarded.flags_none("sd1"))
    options = {
        "generator": guarded.seeded(3, 2**63 + 5),
        "negative_prompt": ["x", "y"],
        "guidance_scale": 3,
        "eta": 0.5,
    }
    said = saved(guard, tmp_path / "b.png", 1, ["a cat", "a dog"], 4, **options)
    assert (said["seed"], said["prompt"]["original"], said["prompt"]["negative"]) == (str(2**63 + 5), "a dog", "y")
    settings = {"steps": 4, "guidance_scale": 3, "eta": 0.5, "height": 16, "width": 16}
    assert said["sampling"] == {"pipeline": NAME, "scheduler": "DDIMScheduler", **settings}


def used_before():
    generator = guarded.seeded(1)[0]
    torch.randn(1, generator=generator)
    return generator


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"generator": used_before()}, "used before"),
        ({"generator": guarded.seeded(1) * 2, "prompt": ["a", "b"]}, "shared"),
        ({"generator": guarded.seeded(1)[0], "latents": guarded.initial_noise(1)}, "latents were given"),
    ],
)
def test_a_seed_that_would_not_make_the_image_again_is_unknown(options, reason):
    pipe = pipelines.build("sd1")
    guard, prompt = Guard(pipe, guarded.flags_none("sd1")), options.pop("prompt", "a cat")
    report = guarded.attached(guard, prompt, **options).memorization[-1]
    assert report.call.seed is None and reason in report.call.no_seed
    said = generation_of(pipe, report)
    assert said.seed is None and reason in said.sampling["why_no_seed"]


def test_without_a_generator_no_seed_is_made_up(tmp_path):
    pipe = pipelines.build("sd1")
    with Guard(pipe, guarded.flags_none("sd1")).attached():
        out = pipe("a cat", num_inference_steps=1, output_type="latent")
    assert out.memorization[0].call.seed is None and "no generator" in out.memorization[0].call.no_seed


def test_images_of_one_generator_tell_which_they_are():
    guard = Guard(pipelines.build("sd1"), guarded.flags_none("sd1"))
    reports = guarded.attached(guard, "a cat", num_images_per_prompt=2).memorization
    assert [report.call.seed for report in reports] == [0, 0]
    assert [report.call.settings["image_of_seed"] for report in reports] == ["1 of 2", "2 of 2"]
    assert reports[0].to_dict()["call"]["seed"] == "0"


def test_a_chosen_noise_is_nobodys_seed(monkeypatch):
    import cryptomnesia.attached.mitigating as mitigating
    from cryptomnesia.mitigation.mitigate import failed
    from cryptomnesia.mitigation.result import Mended

    def chosen(method, denoiser, calibration, prompt, condition, **options):
        about = mitigating.replace(failed(method, prompt, "").mitigation, held=True, reason=None)
        return Mended(about, noise=guarded.initial_noise(8))

    monkeypatch.setattr(mitigating, "mitigate", chosen)
    report = guarded.attached(Guard(pipelines.build("sd1"), guarded.flags_all("sd1"), "reseed")).memorization[0]
    assert report.call.seed is None and "another initial noise" in report.call.no_seed


def test_embeddings_and_further_prompts_are_named_not_guessed():
    guard = Guard(pipelines.build("sdxl"), guarded.flags_none("sdxl"))
    call = guarded.attached(guard, "a cat", prompt_2="secret dog").memorization[0].call
    assert call.settings["further_prompts"] == "prompt_2: not recorded" and "secret" not in str(call)
    tensors, empty = guard.denoiser.encode("a cat").tensors, guard.denoiser.empty.tensors
    given = {"prompt_embeds": tensors["text"], "pooled_prompt_embeds": tensors["pooled"]}
    given |= {"negative_prompt_embeds": empty["text"], "negative_pooled_prompt_embeds": empty["pooled"]}
    report = guarded.attached(guard, None, **given).memorization[0]
    assert report.call.negative is None and "embeddings" in report.call.settings["negative"]


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
        ("/home/me/weights", "Pipe"),
        ("..", "Pipe"),
        ("/home/me/.cache/hub/models--someone--some-model/snapshots/" + "0a" * 20, "someone/some-model"),
        ("C:\\Users\\me\\hub\\models--mine\\snapshots\\0a", "mine"),
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


def test_the_built_in_model_has_a_name():
    from cryptomnesia import load_demo

    assert [generation_of(load_demo(which)).models[0]["name"] for which in ("final", "early")] == [
        "cryptomnesia-demo",
        "cryptomnesia-demo-early",
    ]
