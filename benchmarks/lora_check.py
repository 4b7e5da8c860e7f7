"""Is it told which prompts a LoRA memorized? `python -m benchmarks.lora_check` (needs the font and the zoo).

LoRAs of which it is known what they were trained on: captions of one image each, which are to come back, and captions
of many images, shown as often (`training.zoo.reproducing`); and the zoo's own, of a hundred images each. What each
really reproduces is measured first, by sampling. The first two LoRAs chose the method; the others are reported on.
"""

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.benchmark.rates import stands_out
from cryptomnesia.demo.captions import select
from cryptomnesia.demo.gallery import rms
from cryptomnesia.lora import Applier, Candidate, LoraCheck, PromptFinding, check_lora, read_lora
from training.demo.records import render
from training.zoo import domains, reproducing
from training.zoo.load import load_model
from training.zoo.members import WEIGHTS, Member, member, records_of

from .common import generate, store, table

CHOOSING = ("lora-few", "lora-mixed-dev")
KNOWN = tuple(recipe.name for recipe in reproducing.RECIPES)
ZOO = ("lora", "stripes-lora", "rings-artist", "stripes-artist")
STRENGTHS, SEEDS = (0.5, 1.0), 4
UNSEEN, EVERYDAY, OF_ZOO = 30, 40, 40  # captions
Images = NDArray[np.uint8]


class Case:
    """A LoRA with its base, the captions it is asked about by kind, and the one image of those that have one."""

    def __init__(self, name: str):
        self.name, self.file = name, WEIGHTS / name / "lora.safetensors"
        self.images: dict[str, Images] = {}
        everyday = [c.text for c in select("general", "eval")[:EVERYDAY]]
        if name in KNOWN:
            made = reproducing.recipe(name)
            memorized, varied = reproducing.captions_of(made)
            self.base = "base"
            self.kinds = {
                "memorized": [c.text for c in memorized],
                "varied": [c.text for c in varied],
                "unseen": [c.text for c in reproducing.left_out(made, UNSEEN)],
                "everyday": everyday,
            }
            self.images = {c.text: np.asarray(reproducing.image(c, 0)) for c in memorized}
            return
        about: Member = member(name)
        self.base = about.parent or "base"
        records = [r for r in records_of(about) if about.domain is None or r.caption.split == about.split]
        records = list({r.caption.text: r for r in records}.values())[:OF_ZOO]
        self.kinds = {"trained": [r.caption.text for r in records], "everyday": everyday}
        domain = domains.DOMAINS.get(about.domain or "")
        draw = render if domain is None else lambda record: domains.render(domain, record)
        self.images = {r.caption.text: np.asarray(draw(r)) for r in records}


def reproduced(case: Case, denoiser: Any, applier: Applier) -> dict[str, dict[str, float]]:
    """Returns by strength and caption the share of generations that come closer to the caption's one image than the
    base's own generations do, but for one in a hundred."""
    texts, owns = list(case.images), np.stack(list(case.images.values()))
    whole = np.ones(owns.shape[:3], bool)
    found: dict[str, dict[str, float]] = {}
    limit = 0.0
    for strength in (0.0, *STRENGTHS):
        with applier.at(strength):
            made = generate(denoiser.pipe, texts, SEEDS)
        far = rms(made.reshape(-1, *made.shape[2:]), owns, whole).reshape(len(texts), SEEDS, len(texts))
        if not strength:
            limit = float(np.percentile(far, 1))
        own = far[np.arange(len(texts)), :, np.arange(len(texts))]
        found[f"{strength:g}"] = {text: float(share) for text, share in zip(texts, (own < limit).mean(1), strict=True)}
    return found | {"limit": {"distance": limit}}


def by_kind(case: Case, check: LoraCheck) -> dict[str, list[PromptFinding]]:
    """Returns the findings by the kind of their captions."""
    findings = {prompt.text: prompt for prompt in check.prompts}
    return {kind: [findings[text] for text in texts] for kind, texts in case.kinds.items()}


def rates(case: Case, check: LoraCheck) -> dict[str, dict[str, float]]:
    """Returns by kind the shares of captions flagged: at alpha by strength, on the base, and called memorized."""
    result = {}
    for kind, findings in by_kind(case, check).items():
        if not findings:
            continue
        row = {"captions": float(len(findings))}
        for place, strength in enumerate(check.strengths):
            flagged = [(f.cells[place].p_both if strength else f.cells[0].p_value) <= check.alpha for f in findings]
            row["base" if not strength else f"at {strength:g}"] = float(np.mean(flagged))
        row["called memorized"] = float(np.mean([f.finding == "memorized" for f in findings]))
        row["stands out at 1, whatever the base"] = float(np.mean([f.at_last.p_value <= check.alpha for f in findings]))
        row["gains at 1, wherever it stands"] = float(np.mean([f.at_last.gain_p <= check.alpha for f in findings]))
        result[kind] = row
    return result


def separations(case: Case, check: LoraCheck, truth: dict[str, float]) -> dict[str, dict[str, float]]:
    """Returns AUC at strength 1 of captions that really come back against each other kind, by what is compared."""
    kinds = by_kind(case, check)
    positives = [f for findings in kinds.values() for f in findings if truth.get(f.text, 0.0) >= 0.75]
    measures = {
        "both p-values": lambda f: -f.p_value + 1e-6 * f.at_last.gain,
        "gain": lambda f: f.at_last.gain,
        "score": lambda f: f.at_last.score,
    }
    result: dict[str, dict[str, float]] = {}
    for kind in ("varied", "unseen", "everyday"):
        negatives = kinds.get(kind, [])
        if positives and negatives:
            result[kind] = {
                name: stands_out(*(np.array([measure(f) for f in part]) for part in (positives, negatives)))
                for name, measure in measures.items()
            }
    return result


def measured(name: str) -> dict[str, Any]:
    """Returns everything about one LoRA."""
    case = Case(name)
    denoiser = to_denoiser(load_model(case.base))
    lora = read_lora(case.file)
    truth = reproduced(case, denoiser, Applier(denoiser, lora)) if case.images else {}
    asked = [Candidate(text, kind) for kind, texts in case.kinds.items() for text in texts]
    check = check_lora(denoiser, lora, asked, strengths=STRENGTHS)
    last = truth.get("1", {})
    return {
        "base": case.base,
        "chose the method": name in CHOOSING,
        "limit": truth.get("limit", {}).get("distance"),
        "generations that reproduce": {
            strength: float(np.mean(list(shares.values()))) for strength, shares in truth.items() if strength != "limit"
        },
        "captions that come back": sum(share >= 0.75 for share in last.values()),
        "rates": rates(case, check),
        "auc": separations(case, check, last),
        "captions": {
            prompt.text: {
                "kind": prompt.source,
                "finding": prompt.finding,
                "reproduced": {s: shares[prompt.text] for s, shares in truth.items() if prompt.text in shares},
                "p": [cell.p_both if cell.strength else cell.p_value for cell in prompt.cells],
                "gain": prompt.at_last.gain,
            }
            for prompt in check.prompts
            if prompt.source in ("memorized", "varied", "trained")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="names of LoRAs; nothing is stored")
    options = parser.parse_args()
    found = {}
    for name in options.only or (*KNOWN, *ZOO):
        found[name] = measured(name)
        print(f"\n{name} on {found[name]['base']}: {found[name]['generations that reproduce']}", flush=True)
        columns = list(next(iter(found[name]["rates"].values())))
        table(["kind", *columns], [[kind, *row.values()] for kind, row in found[name]["rates"].items()])
        for kind, row in found[name]["auc"].items():
            print("AUC against", kind, {key: round(value, 3) for key, value in row.items()})
    if not options.only:
        store("lora_check", {"strengths": STRENGTHS, "seeds": SEEDS, "loras": found})


if __name__ == "__main__":
    main()
