"""Models that are known to have memorized, of the kinds that most people run; see weights/README.md."""

from pathlib import Path
from typing import Any

from cryptomnesia import load_demo
from cryptomnesia.demo import WEIGHTS as DEMO
from cryptomnesia.errors import InputError

WEIGHTS = Path(__file__).parent / "weights"
STUDENTS = ("scale-input", "scale-baked-in", "four-steps")
FLOW = "flow"
NAMES = (*STUDENTS, FLOW)


def load(name: str) -> Any:
    """One of the models as a diffusers pipeline, 64x64 pixels, float32, on the CPU.

    Args:
        name: A student of the built-in model ("scale-input": the guidance scale is an input of its network;
            "scale-baked-in": it answers as the teacher does at 7.5; "four-steps": the same, to be sampled in four
            steps), or "flow", a rectified-flow transformer that was trained from scratch on more wordings.

    Returns:
        A StableDiffusionPipeline, of "flow" a StableDiffusion3Pipeline.

    Raises:
        InputError: There is no such model.
    """
    if name not in NAMES:
        raise InputError(f"no model of known truth is called {name!r}: use one of {', '.join(NAMES)}")
    return _flow() if name == FLOW else _student(name)


def _student(name: str) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    pipe = load_demo()
    pipe.register_modules(unet=UNet2DConditionModel.from_pretrained(WEIGHTS / name / "unet").float().eval())
    pipe.scheduler = _scheduler(WEIGHTS / name / "scheduler")
    pipe.register_to_config(_name_or_path=f"cryptomnesia-{name}")
    return pipe


def _scheduler(folder: Path) -> Any:
    import diffusers
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    config: Any = DDIMScheduler.load_config(folder)
    return getattr(diffusers, config["_class_name"]).from_config(config)


def _flow() -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline

    folder = WEIGHTS / FLOW
    # its autoencoder is the built-in model's, but for the shift that this pipeline wants to be told
    config: Any = AutoencoderKL.load_config(folder / "vae")
    coder: Any = AutoencoderKL.from_pretrained(DEMO / "vae").float()
    coder.register_to_config(shift_factor=config["shift_factor"])
    pipe: Any = StableDiffusion3Pipeline.from_pretrained(
        folder, vae=coder, text_encoder_3=None, tokenizer_3=None, local_files_only=True
    )
    for part in (pipe.transformer, pipe.text_encoder, pipe.text_encoder_2):
        part.float()
    pipe.set_progress_bar_config(disable=True)
    return pipe
