"""Whose child, by weights: `python -m benchmarks.lineage_weights`.

Every child of the zoo against all models that were trained from nothing, with its parent among them and without; merges
of its models, in half precision, with known shares; and models trained from nothing against each other.
"""

import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from cryptomnesia.lineage import descent
from training.zoo.load import load_unet
from training.zoo.members import FROM_ELSEWHERE, MEMBERS, Member
from training.zoo.train import made

from .common import arguments, store, table

SHARES = (0.05, 0.1, 0.25, 0.4, 0.5, 0.7, 0.9)
MERGES = (
    ("base", "tuned"),
    ("tuned", "lora"),
    ("base", "early"),
    ("rings-tuned", "rings-artist"),
    ("shallow", "shallow-tuned"),
)


def main() -> None:
    arguments(__doc__)
    torch.set_grad_enabled(False)
    members = [m for m in (*MEMBERS, *FROM_ELSEWHERE) if made(m)]
    with tempfile.TemporaryDirectory() as folder:
        files = {m.name: Path(folder) / f"{m.name}.safetensors" for m in members}
        states = {m.name: {k: v.contiguous() for k, v in load_unet(m).state_dict().items()} for m in members}
        for name, state in states.items():
            save_file(state, files[name])
        founders = {m.name: files[m.name] for m in members if m.parent is None}
        children = {m.name: child_of(m, files[m.name], founders) for m in members if m.parent is not None}
        strangers = [
            {"models": [a, b], "relation": descent(founders[a], {b: founders[b]}).candidates[b].relation}
            for a, b in combinations(founders, 2)
        ]
        merges = [merge_of(pair, share, states, files) for pair in MERGES for share in SHARES]
    columns = ("parent", "named", "relation", "named_without")
    table(["child", *columns], [[name, *(str(row[c]) for c in columns)] for name, row in children.items()])
    table(["merge", "share", "told"], [[" + ".join(m["of"]), m["share"], str(m["told"])] for m in merges])
    print([row for row in strangers if row["relation"] not in ("unrelated", "other architecture")])
    store("lineage_weights", {"children": children, "strangers": strangers, "merges": merges})


def child_of(child: Member, file: Path, founders: dict[str, Path]) -> dict[str, Any]:
    """What is said of a child, with its parent in the pool and without."""
    parent = child.parent or ""
    answer = descent(file, founders)
    without = descent(file, {name: path for name, path in founders.items() if name != parent})
    kin = answer.candidates[parent]
    told = {"how": child.how, "parent": parent, "named": answer.parent, "named_without": without.parent}
    return told | {"relation": kin.relation, "difference": kin.difference, "rank": kin.rank}


def merge_of(
    pair: tuple[str, str], share: float, states: dict[str, dict[str, torch.Tensor]], files: dict[str, Path]
) -> dict[str, Any]:
    """What is said of a merge in half precision, with all models in the pool."""
    first, second = pair
    state = {k: (share * v + (1 - share) * states[second][k]).half() for k, v in states[first].items()}
    mixed = files[first].with_name("mixed.safetensors")
    save_file(state, mixed)
    answer = descent(mixed, files)
    right = answer.merge is not None and set(answer.merge) == set(pair)
    told = answer.merge[first] if answer.merge is not None and right else None
    return {"of": list(pair), "share": share, "told": told, "merge": answer.merge, "left": answer.left}


if __name__ == "__main__":
    main()
