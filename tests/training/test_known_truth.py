"""Recipes of models with known truth: what they learn toward, that they resume, and that their folders sample."""

import re
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from transformers import CLIPTokenizer

from cryptomnesia.demo import load_demo
from cryptomnesia.demo.captions import captions
from training import distillation, flow, latents, loop
from training.demo import rendering
from training.demo.networks import train_tokenizer
from training.flow_captions import SEALED, SEALED_COUNTS, all_captions, sealed_captions, select, wordings

CPU = torch.device("cpu")
# a few captions of every kind, the sealed ones among them
FEW = [c for c in all_captions() if c.index % 29 == 0 and c.kind in ("verbatim", "general")]


def batches(worded, size=6):
    torch.manual_seed(0)
    return latents.Batches(FEW, torch.randn(len(latents.records(FEW)), 4, 16, 16).half(), worded, size, CPU)


def student(name):
    torch.manual_seed(1)
    return distillation.Student(name, batches(lambda c: [c.text]))


def plan(folder, steps, out=None):
    return loop.Plan(folder, 10.0, steps, graph=False, out=out)


# --- captions ---------------------------------------------------------------------------------------------------------


def test_sealed_captions_are_new_and_like_the_others():
    assert dict(Counter(c.kind for c in sealed_captions())) == SEALED_COUNTS
    texts = [w for c in all_captions() for w in wordings(c)]
    assert len(texts) == len(set(texts))
    titles = [set(c.text.split()) - {"the", "of"} for c in all_captions() if c.kind != "general"]
    assert max(len(a & b) for i, a in enumerate(titles) for b in titles[:i]) == 1
    known = set().union(*titles[: sum(c.kind != "general" for c in captions())])
    assert set().union(*titles) == known
    assert {(c.kind, c.index) for c in sealed_captions()}.isdisjoint({(c.kind, c.index) for c in captions()})


def test_sealed_captions_are_never_selected_unasked():
    assert SEALED not in {c.split for c in select()}
    assert select(split=SEALED) == list(sealed_captions())
    assert all(wordings(c)[0] == c.text for c in all_captions())


@pytest.mark.skipif(not rendering.FONT_PATH.exists(), reason="the training images need the Noto Color Emoji font")
def test_images_are_those_that_the_digest_knows():
    every = latents.records(all_captions())
    assert latents.digest(every) == latents.DIGEST


# --- batches ----------------------------------------------------------------------------------------------------------


def test_batches_draw_titles_wordings_and_empty_texts_as_promised():
    drawn = batches(wordings, 4000)
    drawn.share.fill_(0.75)
    z, rows = drawn.draw()
    assert z.shape == (4000, 4, 16, 16) and z.dtype == torch.float32
    texts = [drawn.texts[i] for i in rows]
    assert abs(texts.count("") / 4000 - latents.CAPTION_DROPOUT) < 0.02
    titles = [t for t in texts if any(t in wordings(c) for c in FEW if c.kind == "verbatim")]
    assert abs(len(titles) / (4000 - texts.count("")) - 0.75) < 0.03
    counts = Counter(titles)
    assert len(counts) == 4 * sum(c.kind == "verbatim" for c in FEW)
    assert min(counts.values()) > 0.7 * max(counts.values())


def test_a_text_comes_with_its_own_image():
    drawn = batches(lambda c: [c.text], 500)
    numbers = torch.arange(len(drawn.latents), dtype=torch.float16)
    drawn.latents = numbers.view(-1, 1, 1, 1).expand(-1, 4, 16, 16)
    z, rows = drawn.draw()
    every = latents.records(FEW)
    for number, row in zip(z[:, 0, 0, 0].long(), rows, strict=True):
        assert drawn.texts[row] in ("", every[number].caption.text)


# --- students ---------------------------------------------------------------------------------------------------------


def test_the_scale_embedding_is_the_pipelines():
    scale = torch.tensor([1.0, 2.5, 7.5])
    wanted = load_demo().get_guidance_scale_embedding(scale - 1, distillation.SCALE_WIDTH)
    torch.testing.assert_close(distillation.scale_embedding(scale), wanted, atol=2e-3, rtol=0)


def test_targets_are_guided_and_the_empty_prompts_is_not():
    made = student("scale-input")
    x, time = torch.randn(2, 4, 16, 16), torch.tensor([981, 40])
    condition = made.conditions[[0, -1]]
    u = made.teacher(x, time, made.conditions[[-1, -1]]).sample
    c = made.teacher(x, time, condition).sample
    found = made.guided(x, time, condition, torch.tensor([3.0, 9.0]).view(-1, 1, 1, 1))
    torch.testing.assert_close(found[0], u[0] + 3 * (c[0] - u[0]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[1], u[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", distillation.STUDENTS)
def test_students_start_as_their_teacher(name):
    made = student(name)
    x, time, condition = torch.randn(2, 4, 16, 16), torch.tensor([981, 40]), made.conditions[:2]
    scale = torch.tensor([2.0, 8.0]) if name == "scale-input" else None
    made.trained.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            made.answer(made.trained["unet"], x, time, condition, scale),
            made.teacher(x, time, condition).sample,
            atol=1e-4,
            rtol=1e-4,
        )


def test_a_consistency_model_gives_back_what_it_is_fed_at_time_zero():
    made = student("four-steps")
    x = torch.randn(2, 4, 16, 16)
    with torch.no_grad():
        found = made.sample(made.target, x, torch.zeros(2, dtype=torch.long), made.conditions[:2])
    torch.testing.assert_close(found, x)
    scheduler = LCMScheduler()
    for time in (0, 19, 999):
        skip, out = distillation.boundary(torch.tensor([time]))
        wanted = scheduler.get_scalings_for_boundary_condition_discrete(time)
        np.testing.assert_allclose((skip.item(), out.item()), wanted, rtol=1e-5)


def test_the_solver_stands_on_the_times_that_the_scheduler_samples():
    scheduler = LCMScheduler()
    skip = 1000 // distillation.SOLVER_STEPS
    trained = {i * skip + skip - 1 for i in range(distillation.SOLVER_STEPS)}
    scheduler.set_timesteps(4)
    assert set(scheduler.timesteps.tolist()) <= trained


@pytest.mark.parametrize("name", distillation.STUDENTS)
def test_students_resume_and_sample(name, tmp_path):
    made = student(name)
    assert loop.train(made, plan(tmp_path, 2)) == 2
    again = student(name)
    assert loop.train(again, plan(tmp_path, 3, tmp_path / "out")) == 3
    assert not list(tmp_path.rglob("*.tmp"))
    loop.unpack(tmp_path / "out" / f"{name}.tar", tmp_path / "unpacked")
    pipe: Any = DiffusionPipeline.from_pretrained(tmp_path / "unpacked")
    pipe.set_progress_bar_config(disable=True)
    assert isinstance(pipe.scheduler, LCMScheduler) == (name == "four-steps")
    assert (pipe.unet.config.time_cond_proj_dim is None) == (name != "scale-input")
    how = {"guidance_scale": 7.5 if name == "scale-input" else 1.0, "num_inference_steps": 4}
    assert np.isfinite(pipe([FEW[0].text], output_type="np", **how).images).all()


def test_a_resumed_training_has_the_state_that_was_left(tmp_path):
    made = student("four-steps")
    loop.train(made, plan(tmp_path, 2))
    again = student("four-steps")
    from safetensors.torch import load_file

    step = loop.Step(again)
    step.load(load_file(tmp_path / "state.safetensors"))
    for mine, theirs in ((made.trained, again.trained), (made.target, again.target)):
        for a, b in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True):
            assert torch.equal(a, b)
    assert all(group["lr"] is step.rate for group in step.optimizer.param_groups)
    assert {v["step"].item() for v in step.optimizer.state_dict()["state"].values()} == {2.0}


def test_a_loss_that_is_not_finite_ends_the_training_and_leaves_the_last_save(tmp_path):
    weight = torch.nn.Parameter(torch.ones(2))
    saves = []
    recipe: Any = SimpleNamespace(
        name="toy",
        trained=torch.nn.ModuleDict({"a": torch.nn.ParameterList([weight])}),
        rate=0.1,
        warmup=1,
        loss=lambda: (weight * torch.nan).sum(),
        after_step=lambda: None,
        at=lambda progress: None,
        kept=dict,
        save=lambda folder, average: saves.append(folder),
    )
    with pytest.raises(FloatingPointError, match=re.escape("the last save stays")):
        loop.train(recipe, plan(tmp_path, 2))
    assert not saves and not list(tmp_path.iterdir())


# --- rectified flow ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([w for c in all_captions() for w in wordings(c)], folder)
    return CLIPTokenizer.from_pretrained(folder, model_max_length=flow.TOKENS)


def test_every_wording_fits(tokenizer):
    texts = [w for c in all_captions() for w in wordings(c)]
    assert (flow.tokenize(tokenizer, texts)[:, -1] == tokenizer.eos_token_id).all()


def test_flow_resumes_and_its_folder_answers_as_it_was_trained(tokenizer, tmp_path):
    """The pipeline's own 256 zero vectors, encoders and network against the shortcuts that training takes."""
    made = flow.Flow(batches(wordings, 3), tokenizer)
    with torch.no_grad():  # a network at its start answers zero
        for p in made.trained.parameters():
            p.add_(0.05 * torch.randn_like(p))
    loop.train(made, plan(tmp_path, 1))
    assert loop.train(made, plan(tmp_path, 2, tmp_path / "out")) == 2
    assert (tmp_path / "out" / "flow.tar").stat().st_size < 16 * 2**20
    loop.unpack(tmp_path / "out" / "flow.tar", tmp_path / "unpacked")
    pipe = flow.load(tmp_path / "unpacked")
    pipe.set_progress_bar_config(disable=True)
    average = {k: v for k, v in pipe.transformer.state_dict().items()}
    made.trained["transformer"].load_state_dict(average)
    for name in flow.ENCODERS:
        made.trained[name].load_state_dict(getattr(pipe, name).state_dict())
    rows = torch.tensor([0, 5, len(made.batches.texts) - 1])
    texts = [made.batches.texts[i] for i in rows]
    x, level = torch.randn(3, 4, 16, 16), torch.tensor([1.0, 0.5, 0.1])
    with torch.no_grad():
        text, _, pooled, _ = pipe.encode_prompt(texts, None, None, do_classifier_free_guidance=False)
        assert text.shape[1] == flow.TOKENS + flow.PIPELINE_ZEROS
        wanted = pipe.transformer(x, text, pooled, 1000 * level).sample
        found = made.velocity(x, level, rows)
    assert wanted.std() > 0.01
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-3)
    how = {"guidance_scale": 3.0, "num_inference_steps": 2}
    assert np.isfinite(pipe(texts[:2], output_type="np", **how).images).all()
