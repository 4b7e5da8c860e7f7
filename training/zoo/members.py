"""The models of the zoo, and how each is made."""

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from cryptomnesia.demo.captions import select

from ..demo.records import RENDERINGS, Record, training_records
from . import domains

WEIGHTS = Path(__file__).parents[2] / "benchmarks" / "zoo" / "weights"
SMALL = 100  # images of a fine-tune


@dataclass(frozen=True)
class Member:
    """A model of the zoo.

    Attributes:
        name: The model's name, which is its folder's, too.
        parent: The name of the model that it was made from; None if trained from scratch.
        how: The way it was made: "shipped", "scratch", "full" (fine-tune) or "lora".
        blocks: Channels per level of a UNet trained from scratch.
        target: What the network puts out.
        split: General captions whose held-out renderings it was fine-tuned on.
        domain: The domain of the images that it was trained on last; None for the built-in model's.
        steps, rate: The number of training steps and the learning rate.
        in_pool: Whether benchmarks may know it; one model is left out, to test "none of these".
    """

    name: str
    parent: str | None = None
    how: Literal["shipped", "scratch", "full", "lora"] = "shipped"
    blocks: tuple[int, ...] = (64, 96, 112)
    target: Literal["epsilon", "v_prediction"] = "epsilon"
    split: str | None = None
    domain: str | None = None
    steps: int = 0
    rate: float = 8e-4
    in_pool: bool = True


MEMBERS = (
    Member("base"),
    Member("early", parent="base"),
    Member("tuned", "base", "full", split="calibration", steps=400, rate=2e-4),
    Member("lora", "base", "lora", split="dev", steps=400, rate=1e-3),
    Member("shallow", None, "scratch", (64, 96), steps=3000),
    Member("velocity", None, "scratch", (48, 64, 96), "v_prediction", steps=1750),
    Member("shallow-tuned", "shallow", "full", (64, 96), split="dev", steps=300, rate=2e-4),
    Member("outsider", None, "scratch", (48, 64, 96), steps=1250, in_pool=False),
)
FROM_ELSEWHERE = (
    *(Member(domain.name, None, "scratch", (48, 64), domain=domain.name, steps=6500) for domain in domains.MODELS),
    Member("rings-tuned", "rings", "full", (48, 64), split="calibration", domain="rings", steps=200, rate=2e-4),
    Member("stripes-lora", "stripes", "lora", (48, 64), split="dev", domain="stripes", steps=400, rate=1e-3),
    Member("rings-artist", "rings", "lora", (48, 64), split="calibration", domain="artist", steps=400, rate=1e-3),
    Member("stripes-artist", "stripes", "lora", (48, 64), split="dev", domain="artist", steps=400, rate=1e-3),
)
"""For lineage: models trained on other data than the built-in model, and children of theirs, on images of the same
domain or of another one."""


def member(name: str) -> Member:
    """Returns the member of that name."""
    return next(m for m in (*MEMBERS, *FROM_ELSEWHERE) if m.name == name)


@cache
def fine_tuning_records(split: str) -> tuple[Record, ...]:
    """Returns the records of a fine-tune: a rendering that no other training saw, of captions drawn from the split."""
    chosen = random.Random(f"zoo/{split}").sample(select("general", split), SMALL)
    return tuple(Record(caption, RENDERINGS["general"]) for caption in chosen)


def held_out_records(split: str) -> list[Record]:
    """Returns as many records of the same captions that no training saw."""
    return [Record(record.caption, record.rendering + 1) for record in fine_tuning_records(split)]


def records_of(model: Member) -> list[Record]:
    """Returns the records that a model was trained on last."""
    if model.split is not None:
        return list(fine_tuning_records(model.split))
    return training_records() if model.domain is None else domains.records()


def unet(model: Member) -> Any:
    """Returns the untrained network of a model from scratch."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    deeper = len(model.blocks) - 1
    down: Any = ("DownBlock2D", *["CrossAttnDownBlock2D"] * deeper)
    up: Any = (*["CrossAttnUpBlock2D"] * deeper, "UpBlock2D")
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=model.blocks,
        layers_per_block=1,
        down_block_types=down,
        up_block_types=up,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )
