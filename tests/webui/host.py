"""A small web UI of our own: it calls a script's hooks in the recorded order with the recorded arguments.

Its processing is what the hooks look at, and no more; what samples is the model behind one of the shapes in `models`.
"""

import importlib.util
import re
import sys
import types
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, PngImagePlugin
from torch import Tensor

from cryptomnesia.levels import Levels

from .models import CompVisModel, ForgeModel, install_backend

ROOT = Path(__file__).parents[2]
CHANNELS, FACTOR = 4, 8
STEPS = 1


class Schedule(NamedTuple):
    end_at_step: int
    cond: Tensor


class Part(NamedTuple):
    schedules: list[Schedule]
    weight: float


class Conditioning(NamedTuple):
    batch: list[list[Part]]


class Prompts(list):
    """The web UI's SdConditioning."""

    def __init__(self, prompts: Any, is_negative_prompt: bool = False, width: Any = None, height: Any = None):
        super().__init__(prompts)


def read(model: Any, prompts: list[str]) -> Conditioning:
    """AND, a weight behind a colon, and [from:to:when]; brackets of weights are the model's own."""
    rows = []
    for prompt in prompts:
        parts = []
        for text in re.split(r"\bAND\b", prompt):
            found = re.fullmatch(r"(.*?)(?::\s*([-+]?[\d.]+))?\s*", text, re.DOTALL)
            text, weight = found[1], float(found[2] or 1)
            turns = re.search(r"\[([^\[\]:]*):([^\[\]:]*):([\d.]+)\]", text)
            texts = [text] if turns is None else [text.replace(turns[0], turns[side]) for side in (1, 2)]
            conds = model.get_learned_conditioning(Prompts([text.strip() for text in texts]))
            parts.append(Part([Schedule(i, cond) for i, cond in enumerate(conds)], weight))
        rows.append(parts)
    return Conditioning(rows)


class Script:
    """The base class of scripts."""

    filename = alwayson = None
    infotext_fields = paste_field_names = None

    def process_images(self, p: Any, *args: Any) -> None:
        """A script that samples in the place of the web UI; none does."""


class Processing:
    """One job, as the web UI's StableDiffusionProcessing."""

    def __init__(self, host: "Host", prompt: Any, folder: Path, args: tuple[Any, ...] = (), **options: Any):
        self.host, self.script_args, self.sd_model = host, args, host.model
        self.prompt, self.negative_prompt = prompt, ""
        self.n_iter, self.batch_size, self.seed, self.steps = 1, 1, 1, STEPS
        # latents of 16 x 16: of the built-in model a quarter, by A1111's constant an eighth of the image
        self.width = self.height = 64 if host.kind == "sdnext" else 128
        self.cfg_scale = 7.5
        self.sampler_name, self.scheduler = "DDIM", "Automatic"
        self.init_images: Any = [] if host.kind == "sdnext" else None
        self.firstpass_image: Any = None
        self.enable_hr = self.do_not_save_samples = self.tiling = self.is_hr_pass = False
        self.hr_prompt, self.save_before_hr = "", False
        self.outpath_samples, self.outpath_grids = str(folder), str(folder)
        self.extra_generation_params: dict[str, Any] = {}
        self.comments: list[str] = []
        self.extra_network_data: dict[str, Any] = {}
        self.sd_model_name, self.subseed_strength, self.batch_index = "demo", 0, 0
        vars(self).update(options)

    def comment(self, text: str) -> None:
        self.comments.append(text)

    def txt2img_image_conditioning(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), 5, 1, 1)

    def get_token_merging_ratio(self) -> float:
        return 0

    def save_samples(self) -> bool:
        return not self.do_not_save_samples


class Processed:
    def __init__(self, p: Processing, images: list[Any], infotexts: list[str]):
        self.images, self.infotexts, self.comments = images, infotexts, p.comments
        self.extra_generation_params, self.all_seeds = p.extra_generation_params, p.all_seeds


class Host:
    """A program with the extension loaded.

    Attributes:
        kind: "a1111", "forge" or "sdnext".
        log: The hooks that were called, with what called them, as contracts tell.
        callbacks: What the extension registered, by the callback's name.
        errors: What a hook raised, which programs swallow.
        steps: Denoising steps that were taken.
        ending: Of the files that are saved: png, jpg or webp.
    """

    def __init__(self, kind: str, pipe: Any, patch: pytest.MonkeyPatch):
        self.kind, self.pipe, self.patch = kind, pipe, patch
        self.model = {"a1111": CompVisModel, "forge": ForgeModel}.get(kind, lambda pipe: pipe)(pipe)
        self.log: list[tuple[str, str, list[str]]] = []
        self.errors: list[Exception] = []
        self.callbacks: dict[str, Any] = {}
        self.steps = 0
        self.ending = "png"
        self.others: list[Any] = []  # scripts that go before
        self.lora: Any = None  # applied as soon as a prompt names one, by a function that undoes it
        self._install()
        self.script = self._load()

    # --- what it consists of ---

    def _install(self) -> None:
        modules = {name: types.ModuleType(f"modules.{name}") for name in _MODULES}
        root = types.ModuleType("modules")
        root.__path__ = []  # type: ignore[attr-defined]
        for name, module in modules.items():
            module.__spec__ = importlib.util.spec_from_loader(f"modules.{name}", None)
            setattr(root, name, module)
            self.patch.setitem(sys.modules, f"modules.{name}", module)
        self.patch.setitem(sys.modules, "modules", root)
        self.ui: Any = types.SimpleNamespace(**modules)
        self.ui.scripts.Script, self.ui.scripts.AlwaysVisible = Script, object()
        self.ui.scripts.scripts_data = []
        for name in ("on_ui_settings", "on_before_ui", "on_image_saved"):
            setattr(self.ui.script_callbacks, name, lambda call, name=name: self.callbacks.setdefault(name, call))
        shared = self.ui.shared
        shared.sd_model, shared.loaded_hypernetworks = self.model, []
        shared.opts = types.SimpleNamespace(CLIP_stop_at_last_layers=1, token_merging_ratio=0)
        shared.state = types.SimpleNamespace(skipped=False, interrupted=False)
        self.ui.devices.unet_needs_upcast = False
        self.ui.devices.autocast = self.ui.devices.without_autocast = nullcontext
        self.ui.devices.device, self.ui.devices.dtype_unet = torch.device("cpu"), torch.float32
        self.ui.prompt_parser.SdConditioning = Prompts
        self.ui.processing.program_version = lambda: "v0"
        self.ui.call_queue.queue_lock = nullcontext()
        self.ui.sd_unet.current_unet = None
        if self.kind == "forge":
            install_backend(self.patch)

    def _load(self) -> Any:
        self.patch.syspath_prepend(str(ROOT))
        path = ROOT / "scripts" / "cryptomnesia_webui.py"
        spec: Any = importlib.util.spec_from_file_location("script_of_the_extension", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        script = module.CryptomnesiaScript()
        script.filename = str(path)
        return script

    def call(self, caller: str, hook: str, p: Processing, *more: Any, **arguments: Any) -> None:
        """Calls a hook of all scripts, and swallows what it raises, as programs do."""
        self.log.append((caller, hook, sorted(arguments)))
        for script in (*self.others, self.script):
            if hasattr(script, hook):
                args = p.script_args if script is self.script else ()
                try:
                    getattr(script, hook)(p, *more, *args, **arguments)
                except Exception as error:  # noqa: BLE001  # as programs do
                    self.errors.append(error)

    # --- a job ---

    def run(self, p: Processing) -> Processed:
        """process_images_inner, as far as hooks can tell."""
        state, inner = self.ui.shared.state, "process_images_inner"
        state.skipped = state.interrupted = False
        prompts = [p.prompt] * (p.n_iter * p.batch_size) if isinstance(p.prompt, str) else list(p.prompt)
        p.all_prompts, p.all_negative_prompts = prompts, [p.negative_prompt] * len(prompts)
        p.all_hr_prompts = [p.hr_prompt or prompt for prompt in prompts]
        p.all_seeds = [p.seed + i for i in range(len(prompts))]
        p.all_subseeds = list(p.all_seeds)
        self.call(inner, "process", p)
        if p.enable_hr and self.kind != "sdnext":
            p.extra_generation_params["Hires prompt"] = lambda p, index, **_: p.all_hr_prompts[index]
        images, infotexts = [], []
        for n in range(p.n_iter):
            p.iteration = n
            if state.skipped:
                state.skipped = False
                if self.kind == "sdnext":  # which leaves the next batch out then
                    continue
            if state.interrupted:
                break
            mine = slice(n * p.batch_size, (n + 1) * p.batch_size)
            p.prompts, p.negative_prompts = p.all_prompts[mine], p.all_negative_prompts[mine]
            p.seeds, p.subseeds = p.all_seeds[mine], p.all_subseeds[mine]
            told = {"batch_number": n, "prompts": p.prompts, "seeds": p.seeds, "subseeds": p.subseeds}
            p.rng = types.SimpleNamespace(shape=(CHANNELS, p.height // FACTOR, p.width // FACTOR))
            self.call(inner, "before_process_batch", p, **told)
            p.extra_network_data = {"lora": []}
            for i, prompt in enumerate(p.prompts):
                for name, strength in re.findall(r"<lora:([^:>]+):([^>]+)>", prompt):
                    p.extra_network_data["lora"].append(types.SimpleNamespace(items=[name, strength]))
                p.prompts[i] = re.sub(r"<[^>]*>", "", prompt).strip()
            p.hr_prompts = [re.sub(r"<[^>]*>", "", text).strip() for text in p.all_hr_prompts[mine]]
            undo = self.lora() if self.lora and p.extra_network_data["lora"] and self.kind != "sdnext" else None
            self.call(inner, "process_batch", p, **told)
            samples = self._sdnext(p) if self.kind == "sdnext" else self._sample(p)
            if undo:
                undo()
            images += self._finish(p, n, mine, samples, infotexts)
        processed = Processed(p, images, infotexts)
        if self.kind != "sdnext" or not (state.interrupted or state.skipped):
            self.call(inner, "postprocess", p, processed)
        return processed

    def _sample(self, p: Processing) -> Tensor:
        noise = torch.stack([_noise(seed, p.rng.shape) for seed in p.seeds])
        pure = p.firstpass_image is None and not p.init_images
        start = noise if pure else torch.full_like(noise, 0.1)
        c, uc = read(self.model, p.prompts), read(self.model, p.negative_prompts)
        self.call("sample", "process_before_every_sampling", p, x=start, noise=noise, c=c, uc=uc)
        samples = self._denoised(p, start, c, uc)
        if p.enable_hr:
            p.is_hr_pass = True
            if p.save_before_hr and p.save_samples():
                for i, image in enumerate(self._decoded(samples)):
                    self._save(
                        p, image, f"{p.seeds[i]}-before-highres-fix", _infotext(p, i, p.all_prompts, p.all_seeds)
                    )
            self.call("sample_hr_pass", "before_hr", p)
            c = read(self.model, p.hr_prompts)
            self.call("sample_hr_pass", "process_before_every_sampling", p, x=samples, noise=noise, c=c, uc=uc)
            samples = self._denoised(p, samples, c, uc)
            p.is_hr_pass = False
        self.call("process_images_inner", "post_sample", p, types.SimpleNamespace(samples=samples))
        return samples

    def _denoised(self, p: Processing, x: Tensor, c: Conditioning, uc: Conditioning) -> Tensor:
        """DDIM with guidance; nothing once the job is skipped or interrupted."""
        levels = Levels(self.pipe.scheduler.alphas_cumprod)
        between = levels.sampling(p.steps)
        for number, level in enumerate(between):
            if self.ui.shared.state.skipped or self.ui.shared.state.interrupted:
                return x
            self.steps += 1
            guided = []
            for image, parts in enumerate(c.batch):
                row, empty = x[image : image + 1], uc.batch[image][0].schedules[0].cond
                noise = self._asked(row, level.time, empty)
                total = noise.clone()
                for part in parts:
                    cond = part.schedules[min(number, len(part.schedules) - 1)].cond
                    total += p.cfg_scale * part.weight * (self._asked(row, level.time, cond) - noise)
                guided.append(total)
            noise = torch.cat(guided)
            x0 = (x - level.sigma * noise) / level.alpha
            following = between[number + 1] if number + 1 < len(between) else levels.timestep(0)
            x = following.alpha * x0 + following.sigma * noise
        return x

    def _asked(self, x: Tensor, time: Tensor, cond: Tensor) -> Tensor:
        with torch.no_grad():
            text = cond.unsqueeze(0).clone()
            return self.pipe.unet(x, time, encoder_hidden_states=text, return_dict=False)[0]

    def _decoded(self, samples: Any) -> Any:
        with torch.no_grad():
            found = self.pipe.vae.decode(samples / self.pipe.vae.config.scaling_factor).sample
        return (found / 2 + 0.5).clamp(0, 1)

    def _sdnext(self, p: Processing) -> Any:
        self.call("process_images_inner", "process_images", p)
        generators = [torch.Generator().manual_seed(seed) for seed in p.seeds]
        try:
            done = self.pipe(
                prompt=p.prompts,
                generator=generators,
                num_inference_steps=p.steps,
                guidance_scale=p.cfg_scale,
                height=p.height,
                width=p.width,
                output_type="pt",
            )
            self.steps += p.steps
            return done.images
        except AssertionError as error:  # which SD.Next takes for an interruption
            assert "Cryptomnesia" in str(error)
            return []

    def _finish(self, p: Processing, n: int, mine: slice, samples: Any, infotexts: list[str]) -> list[Any]:
        inner = "process_images_inner"
        tensors = list(samples) if self.kind == "sdnext" else list(self._decoded(samples))
        self.call(
            inner, "postprocess_batch", p, batch_number=n, **({} if self.kind == "sdnext" else {"images": tensors})
        )
        p.prompts, p.negative_prompts = p.all_prompts[mine], p.all_negative_prompts[mine]
        pp = types.SimpleNamespace(images=tensors)
        self.call(inner, "postprocess_batch_list", p, pp, batch_number=n)
        images = []
        for i, tensor in enumerate(pp.images):
            p.batch_index = i
            image = Image.fromarray((tensor.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
            if not self.ui.shared.state.skipped or self.kind != "sdnext":
                self.call(inner, "postprocess_image", p, types.SimpleNamespace(image=image))
            text = _infotext(p, i, p.prompts, p.seeds, joined=self.kind == "sdnext")
            if p.save_samples():
                self._save(p, image, f"{p.seeds[i]:05}", text)
            infotexts.append(text)
            images.append(image)
        return images

    def _save(self, p: Processing, image: Any, name: str, info: str) -> None:
        if isinstance(image, Tensor):
            image = Image.fromarray((image.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
        path = Path(p.outpath_samples) / f"{name}.{self.ending}"
        if self.ending == "png":
            told = PngImagePlugin.PngInfo()
            told.add_text("parameters", info)
            image.save(path, pnginfo=told)
        else:  # as a user's comment, with the character code before it
            exif = Image.Exif()
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + info.encode("utf-16-be")
            image.save(path, exif=exif)
        params = types.SimpleNamespace(image=image, p=p, filename=str(path), pnginfo={"parameters": info})
        self.callbacks["on_image_saved"](params)


_MODULES = "scripts script_callbacks shared devices prompt_parser processing call_queue sd_unet".split()


def _noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _infotext(p: Processing, index: int, prompts: list[str], seeds: list[int], *, joined: bool = False) -> str:
    """One image's: lists are looked up by number, functions called; SD.Next knows neither."""
    found: dict[str, Any] = {"Seed": seeds[index]}
    for key, value in p.extra_generation_params.items():
        if joined:
            found[key] = ", ".join(map(str, value)) if isinstance(value, list) else value
        elif isinstance(value, list):
            found[key] = value[index]
        elif callable(value):
            about = {"all_prompts": prompts, "all_seeds": seeds, "use_main_prompt": False, "iteration": 0}
            found[key] = value(p=p, index=index, **about)
        else:
            found[key] = value
    told = ", ".join(f"{key}: {value}" for key, value in found.items() if value is not None)
    return f"{prompts[index]}\n{told}"
