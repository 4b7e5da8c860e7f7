"""Children of the rectified-flow model: a fine-tune and two LoRAs, `python -m training.flow_children WORK`.

One LoRA sees a few images of another domain, the others more of the kind that the model knows. Text encoders stay as
they are. A child takes two minutes on one core and is kept in WORK, so that a stopped run goes on.
"""

import argparse
import logging
import time
import zlib
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import parametrize

from benchmarks.known_truth import load as load_known

from . import flow
from .demo.train import write
from .flow_captions import wordings
from .zoo import lora, styles

log = logging.getLogger(__name__)
BATCH, GUIDANCE = 12, 3.0
KNOWN, OTHER = (
    styles.Style("plain", (0.55, 0.8), "none"),
    styles.Style("rings", (0.55, 0.8), "none"),
)


@dataclass(frozen=True)
class Child:
    """How a child was made: its name, "full" or "lora", the style that it was taught, steps and learning rate."""

    name: str
    how: str
    style: styles.Style
    steps: int
    rate: float


CHILDREN = (
    Child("flow-tuned", "full", KNOWN, 60, 2e-4),
    Child("flow-lora", "lora", KNOWN, 60, 1e-3),
    Child("flow-lora-rings", "lora", OTHER, 40, 1e-3),
)
NAMES = ("flow", *(child.name for child in CHILDREN))


@cache
def _pipe() -> Any:
    return load_known("flow")


def encoded(texts: list[str]) -> tuple[Tensor, Tensor]:
    """Returns states (N, TOKENS + ZEROS, D) and pooled (N, D) of texts, as `training.flow` makes them."""
    pipe = _pipe()
    tokens = flow.tokenize(pipe.tokenizer, texts)
    ends = tokens.eq(pipe.tokenizer.eos_token_id).int().argmax(1)
    end = functional.one_hot(ends, flow.TOKENS)[:, None].float()
    numbers = torch.arange(len(pipe.tokenizer))
    with torch.inference_mode():
        states, pooled = zip(
            *(flow.encode(encoder, tokens, numbers, end) for encoder in (pipe.text_encoder, pipe.text_encoder_2)),
            strict=True,
        )
        return functional.pad(torch.cat(states, -1), (0, 0, 0, flow.ZEROS)).clone(), torch.cat(pooled, -1).clone()


def network() -> Any:
    """Returns the model's transformer, which counts a few of the pipeline's zero vectors as all."""
    kept = _pipe().transformer
    copy: Any = type(kept).from_config(kept.config)
    copy.load_state_dict(kept.state_dict())
    copy.set_attn_processor(flow.WeightedAttention(64 + flow.TOKENS + flow.ZEROS, torch.device("cpu")))
    return copy.float()


def velocity(transformer: Any, x: Tensor, level: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
    """Returns noise - x0, (B, 4, 16, 16), at levels (B,) in [0, 1]."""
    return transformer(
        hidden_states=x,
        timestep=1000 * level,
        encoder_hidden_states=states,
        pooled_projections=pooled,
        return_dict=False,
    )[0]


def file_of(name: str, work: Path) -> Path:
    """Returns where a child's weights are kept."""
    return work / "models" / f"{name}.safetensors"


def load(name: str, work: Path) -> Any:
    """Returns the transformer of the model, or of a child in the folder."""
    made = network()
    if name != "flow":
        made.load_state_dict(load_file(file_of(name, work)))
    return made.eval()


def train(child: Child, work: Path) -> None:
    """Trains a child and keeps it."""
    made, began = network().train(), time.monotonic()
    torch.manual_seed(zlib.crc32(child.name.encode()))
    parameters = lora.add(made) if child.how == "lora" else list(made.parameters())
    first, count = (styles.RENDERED + 10, 2) if child.style == KNOWN else (0, 2)  # images that no training saw
    z = styles.latents_of(child.style, first, count)
    texts = [wordings(c) for c in styles.captions() for _ in range(count)]
    states, pooled = encoded([text for worded in texts for text in worded])
    columns, loss = len(texts[0]), torch.zeros(())
    optimizer = torch.optim.AdamW(parameters, child.rate, weight_decay=1e-3)
    for step in range(child.steps):
        for group in optimizer.param_groups:
            group["lr"] = child.rate * min(1.0, (step + 1) / 10)
        rows = torch.randint(len(z), (BATCH,))
        words = rows * columns + torch.randint(columns, (BATCH,))
        noise, level = torch.randn_like(z[rows]), torch.rand(BATCH)
        s = level.view(-1, 1, 1, 1)
        out = velocity(made, (1 - s) * z[rows] + s * noise, level, states[words], pooled[words])
        loss = (out - (noise - z[rows])).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    for module in made.modules():
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
    write(file_of(child.name, work), made.state_dict())
    log.info("%s: loss %.4f, %.0f s", child.name, loss.item(), time.monotonic() - began)


@torch.inference_mode()
def sample(transformer: Any, texts: list[str], seed: int, steps: int, guidance: float) -> Tensor:
    """Returns latents (N, 4, 16, 16) of texts by Euler steps of equal times."""
    x = torch.randn(len(texts), 4, 16, 16, generator=torch.Generator().manual_seed(seed))
    states, pooled = encoded([*texts, *[""] * len(texts)])
    times = torch.linspace(1, 0, steps + 1)
    for now, following in pairwise(times):
        answers = velocity(transformer, torch.cat([x, x]), now.expand(2 * len(x)), states, pooled)
        told, empty = answers.chunk(2)
        x = x + (following - now) * (empty + guidance * (told - empty))
    return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for child in CHILDREN:
        if not file_of(child.name, options.work).exists():
            train(child, options.work)


if __name__ == "__main__":
    main()
