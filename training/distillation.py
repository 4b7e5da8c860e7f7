"""Students of the built-in model, of known truth: `python -m training.distillation FOLDER STUDENT --latents FOLDER`.

scale-input: guidance as an input of the network, u + w (c - u) for w in [1, 10] (Meng et al. 2023, arXiv 2210.03142);
scale-baked-in: always 7.5; four-steps: a latent consistency model (Luo et al. 2023, arXiv 2310.04378) of the teacher
guided by 7.5. Each starts from the teacher and answers the empty prompt like the teacher, whatever the scale. The text
encoder is the teacher's. Which of the teacher's images a student reproduces has to be measured anew.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cryptomnesia.demo import WEIGHTS, load_demo
from cryptomnesia.demo.captions import captions

from . import latents, running

SCALE = 7.5
SCALES = (1.0, 10.0)
SCALE_WIDTH = 256
SOLVER_STEPS = 50  # of the ODE that a consistency model skips along, as LCMScheduler takes them
TIME_SCALING, DATA_DEVIATION = 10.0, 0.5  # LCMScheduler's
TARGET_DECAY = 0.95
HUBER = 1e-3
STUDENTS = ("scale-input", "scale-baked-in", "four-steps")
TITLED = (0.5, 0.75)  # share of titles among captions, at first and at last


def scale_embedding(scale: Tensor) -> Tensor:
    """Returns (B, SCALE_WIDTH) sines and cosines of scale - 1, as StableDiffusionPipeline feeds them."""
    half = SCALE_WIDTH // 2
    steps = torch.arange(half, device=scale.device, dtype=torch.float32) / (half - 1)
    angles = (scale - 1)[:, None] * 1000.0 * torch.exp(-steps * 9.210340371976184)  # ln 10000
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def boundary(time: Tensor) -> tuple[Tensor, Tensor]:
    """Returns c_skip and c_out, (B, 1, 1, 1): a consistency model gives back what it is fed at time 0."""
    scaled = time.float().view(-1, 1, 1, 1) * TIME_SCALING
    square = scaled**2 + DATA_DEVIATION**2
    return DATA_DEVIATION**2 / square, scaled / square.sqrt()


class Student:
    """A recipe for `training.loop`.

    Args:
        name: One of STUDENTS.
        batches: The latents and texts that training draws.
    """

    rate, warmup = 3e-4, 100

    def __init__(self, name: str, batches: latents.Batches):
        pipe = load_demo()
        self.name, self.batches, device = name, batches, batches.device
        self.half = torch.float16 if device.type == "cuda" else torch.float32
        with torch.no_grad():
            parts = [
                pipe.encode_prompt(batches.texts[i : i + 256], "cpu", 1, False)[0]
                for i in range(0, len(batches.texts), 256)
            ]
        self.conditions = torch.cat(parts).to(device)
        self.alphas = pipe.scheduler.alphas_cumprod.to(device)
        # float16, not bfloat16: guidance multiplies rounding by the scale
        self.teacher: Any = pipe.unet.to(device, self.half).requires_grad_(False).eval()
        self.trained = nn.ModuleDict({"unet": self._student()})
        self.target: Any = self._student().requires_grad_(False) if name == "four-steps" else None

    def _student(self) -> Any:
        """The teacher in float32, with an input for the scale where the student has one."""
        config: Any = dict(self.teacher.config)
        if self.name == "scale-input":
            config["time_cond_proj_dim"] = SCALE_WIDTH
        unet = type(self.teacher).from_config(config)
        missing, unexpected = unet.load_state_dict(self.teacher.state_dict(), strict=False)
        if set(missing) - {"time_embedding.cond_proj.weight"} or unexpected:
            raise ValueError(f"the student's weights do not fit: {missing}, {unexpected}")
        if missing:
            nn.init.zeros_(unet.time_embedding.cond_proj.weight)
        return unet.float().to(self.batches.device).train()

    def guided(self, x: Tensor, time: Tensor, condition: Tensor, scale: Tensor | float) -> Tensor:
        """Returns the teacher's noise u + scale (c - u), float32, shaped as `x`."""
        empty = self.conditions[-1:].expand_as(condition)
        rows = [torch.cat(pair) for pair in ([x, x], [time, time], [empty, condition])]
        with torch.no_grad():
            out = self.teacher(rows[0].to(self.half), rows[1], rows[2].to(self.half)).sample
        u, c = out.float().chunk(2)
        return u + scale * (c - u)

    def answer(self, unet: Any, x: Tensor, time: Tensor, condition: Tensor, scale: Tensor | None = None) -> Tensor:
        """Returns a student's noise, float32, shaped as `x`."""
        kind = torch.bfloat16 if unet.training and unet is not self.target else self.half
        with torch.autocast(x.device.type, kind, enabled=kind != torch.float32):
            return unet(
                x, time, condition, timestep_cond=None if scale is None else scale_embedding(scale)
            ).sample.float()

    def noised(self, z: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Returns latents with noise added as at these times, shaped as `z`."""
        abar = self.alphas[time].view(-1, 1, 1, 1)
        return abar.sqrt() * z + (1 - abar).sqrt() * noise

    def loss(self) -> Tensor:
        """Returns the loss of a fresh batch, a scalar; see `loop.Recipe`."""
        z, rows = self.batches.draw()
        noise, condition = torch.randn_like(z), self.conditions[rows]
        if self.name == "four-steps":
            return self.consistency(z, noise, condition)
        time = torch.randint(len(self.alphas), (len(z),), device=z.device)
        x = self.noised(z, noise, time)
        scale = None
        if self.name == "scale-input":
            scale = torch.rand(len(z), device=z.device) * (SCALES[1] - SCALES[0]) + SCALES[0]
        target = self.guided(x, time, condition, SCALE if scale is None else scale.view(-1, 1, 1, 1))
        return (self.answer(self.trained["unet"], x, time, condition, scale) - target).square().mean()

    def consistency(self, z: Tensor, noise: Tensor, condition: Tensor) -> Tensor:
        """Returns the distance between the student's answers at both ends of one step of the guided teacher's ODE."""
        skip = len(self.alphas) // SOLVER_STEPS
        later = torch.randint(SOLVER_STEPS, (len(z),), device=z.device) * skip + skip - 1
        sooner = (later - skip).clamp(min=0)
        x = self.noised(z, noise, later)
        guided = self.guided(x, later, condition, SCALE)
        previous = self.noised(self.clean(x, guided, later), guided, sooner)
        student = self.sample(self.trained["unet"], x, later, condition)
        with torch.no_grad():
            wanted = self.sample(self.target, previous, sooner, condition)
        return ((student - wanted).square() + HUBER**2).sqrt().mean() - HUBER

    def clean(self, x: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Returns the clean latent x0 that a noise prediction means, shaped as `x`."""
        abar = self.alphas[time].view(-1, 1, 1, 1)
        return (x - (1 - abar).sqrt() * noise) / abar.sqrt()

    def sample(self, unet: Any, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Returns the consistency function: an x0 from any time, and x itself from time 0."""
        skip, out = boundary(time)
        return skip * x + out * self.clean(x, self.answer(unet, x, time, condition), time)

    def after_step(self) -> None:
        """Moves the target network towards the student, where there is one."""
        if self.target is not None:
            mine: list[Tensor] = list(self.trained["unet"].parameters())
            theirs: list[Tensor] = list(self.target.parameters())
            with torch.no_grad():
                torch._foreach_lerp_(theirs, mine, 1 - TARGET_DECAY)  # pyright: ignore[reportPrivateImportUsage]

    def at(self, progress: float) -> None:
        """Sets the share of titles for the share of the training that is done."""
        self.batches.share.fill_(TITLED[0] + (TITLED[1] - TITLED[0]) * progress)

    def kept(self) -> dict[str, Tensor]:
        """Returns the target network's tensors by name; none for a student without one."""
        return {} if self.target is None else self.target.state_dict()

    def save(self, folder: Path, average: dict[str, Tensor]) -> None:
        """Writes the built-in model's folder with this network, and with LCMScheduler for four steps."""
        for part in ("text_encoder", "tokenizer", "vae", "scheduler"):
            shutil.copytree(WEIGHTS / part, folder / part, dirs_exist_ok=True)
        index = json.loads((WEIGHTS / "model_index.json").read_text())
        if self.name == "four-steps":
            from diffusers.schedulers.scheduling_ddim import DDIMScheduler
            from diffusers.schedulers.scheduling_lcm import LCMScheduler

            scheduler: Any = DDIMScheduler.from_pretrained(WEIGHTS / "scheduler")
            skipping: Any = LCMScheduler.from_config(scheduler.config)
            skipping.save_pretrained(folder / "scheduler")
            index["scheduler"] = ["diffusers", "LCMScheduler"]
        running.save_network(self.trained["unet"], "unet", folder, average)
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def main() -> None:
    parser = running.parser(__doc__)
    parser.add_argument("student", choices=STUDENTS)
    options = running.parsed(parser)
    every = latents.load(options.latents)
    chosen = captions()
    unsealed = every[: len(latents.records(chosen))]
    batches = latents.Batches(chosen, unsealed, lambda c: [c.text], options.batch, torch.device(options.device))
    running.run(Student(options.student, batches), options)


if __name__ == "__main__":
    main()
