"""Is it told which prompts a LoRA memorized? `python -m benchmarks.lora_check WORK` (needs the font and the zoo).

LoRAs of which it is known what they were trained on: captions of one image each, which are to come back, and captions
of many images, shown as often (`training.zoo.reproducing`); and the zoo's own, of a hundred images each. What each
really reproduces is measured first, by sampling. The first two LoRAs chose the method; the others are reported on.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.benchmark.rates import stands_out
from cryptomnesia.demo.captions import benign, select
from cryptomnesia.demo.gallery import rms
from cryptomnesia.false_discovery import adjusted, rejected
from cryptomnesia.lora import Applier, Candidate, LoraCheck, PromptFinding, read_lora
from cryptomnesia.lora.checking import results
from cryptomnesia.lora.measuring import measure
from training.demo.records import render
from training.demo.train import write
from training.zoo import domains, reproducing
from training.zoo.load import load_model
from training.zoo.members import WEIGHTS, Member, member, records_of

from .common import generate, store, table

CHOOSING = ("lora-few", "lora-mixed-dev")
KNOWN = tuple(recipe.name for recipe in reproducing.RECIPES)
ZOO = ("lora", "stripes-lora", "rings-artist", "stripes-artist")
STRENGTHS, SEEDS, DRAWS, ALPHA = (0.5, 1.0), 4, 4, 0.01
OWN = ("memorized", "varied", "trained")  # kinds of captions that a LoRA was trained on
STRAY, CLEAN = "unseen, a memorized image comes back", "unseen, none comes back"
UNSEEN, EVERYDAY, OF_ZOO = 24, 40, 20  # captions
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
        records = records_of(about)[:OF_ZOO]
        self.kinds = {"trained": [r.caption.text for r in records], "everyday": everyday}
        domain = domains.DOMAINS.get(about.domain or "")
        draw = render if domain is None else lambda record: domains.render(domain, record)
        self.images = {r.caption.text: np.asarray(draw(r)) for r in records}


def benign_of(case: Case) -> list[str]:
    """Returns what the command takes for the built-in model, and everyday captions for the others; none is asked about
    or was trained on."""
    asked = {text for texts in case.kinds.values() for text in texts}
    known = benign() if case.base == "base" else [c.text for c in select("general")]
    return [text for text in known if text not in asked and text not in trained_on(case)]


def trained_on(case: Case) -> set[str]:
    """Returns all captions that a LoRA was trained on."""
    if case.name in KNOWN:
        return {c.text for part in reproducing.captions_of(reproducing.recipe(case.name)) for c in part}
    return {record.caption.text for record in records_of(member(case.name))}


def reproduced(case: Case, denoiser: Any, applier: Applier) -> dict[str, dict[str, float]]:
    """Returns by strength and caption the share of generations that come closer to the caption's one image than the
    base's own generations do, but for one in a hundred."""
    if not case.images:
        return {}
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


def led_astray(case: Case, denoiser: Any, applier: Applier, limit: float) -> dict[str, float]:
    """Returns of captions that were never trained on the largest share of generations that come as close to one and
    the same image of the LoRA's: what was memorized comes back with words that are much like its own."""
    texts = case.kinds.get("unseen", [])
    if not texts or not case.images:
        return {}
    owns = np.stack(list(case.images.values()))
    with applier.at(STRENGTHS[-1]):
        made = generate(denoiser.pipe, texts, SEEDS)
    far = rms(made.reshape(-1, *made.shape[2:]), owns, np.ones(owns.shape[:3], bool))
    shares = (far.reshape(len(texts), SEEDS, -1) < limit).mean(1).max(1)
    return {text: float(share) for text, share in zip(texts, shares, strict=True)}


def by_kind(case: Case, check: LoraCheck, astray: dict[str, float]) -> dict[str, list[PromptFinding]]:
    """Returns the findings by the kind of their captions; unseen ones apart by what they bring back."""
    findings = {prompt.text: prompt for prompt in check.prompts}
    kinds = {kind: [findings[text] for text in texts] for kind, texts in case.kinds.items()}
    for kind, wanted in ((STRAY, lambda share: share >= 0.75), (CLEAN, lambda share: share == 0)):
        kinds[kind] = [findings[text] for text, share in astray.items() if wanted(share)]
    return kinds


def rates(case: Case, check: LoraCheck, astray: dict[str, float]) -> dict[str, dict[str, float]]:
    """Returns by kind the shares of captions flagged: at alpha by strength, on the base, and called memorized where the
    LoRA's own captions alone are asked about, as the command does."""
    own = [f for kind in OWN for f in by_kind(case, check, astray).get(kind, [])]
    stands = rejected(adjusted(np.array([f.p_value for f in own])), check.level)
    called = {f.text for f, one in zip(own, stands, strict=True) if one and f.p_value <= check.alpha}
    result = {}
    for kind, findings in by_kind(case, check, astray).items():
        if not findings:
            continue
        row = {"captions": float(len(findings))}
        for place, strength in enumerate(check.strengths):
            flagged = [f.cells[place].shown <= check.alpha for f in findings]
            row["base" if not strength else f"at {strength:g}"] = float(np.mean(flagged))
        if kind in OWN:  # which nobody would ask about together with the LoRA's own
            row["called memorized"] = float(np.mean([f.text in called for f in findings]))
        row["by its score at 1 alone"] = float(np.mean([f.at_last.p_value <= check.alpha for f in findings]))
        row["by the larger of score and gain"] = float(
            np.mean([max(f.at_last.p_value, f.at_last.gain_p) <= check.alpha for f in findings])
        )
        row["by its gain at 1 alone"] = float(np.mean([f.at_last.gain_p <= check.alpha for f in findings]))
        result[kind] = row
    return result


def separations(
    case: Case, check: LoraCheck, truth: dict[str, float], astray: dict[str, float]
) -> dict[str, dict[str, float]]:
    """Returns AUC at strength 1 of captions that really come back against each other kind, by what is compared.

    None for the zoo's own: their images are too much alike to tell what comes back from what only looks like it.
    """
    if case.name not in KNOWN:
        return {}
    kinds = by_kind(case, check, astray)
    positives = [f for findings in kinds.values() for f in findings if truth.get(f.text, 0.0) >= 0.75]
    measures = {
        "both p-values": lambda f: -f.p_value + 1e-6 * f.at_last.gain,
        "score and gain": lambda f: f.at_last.score + f.at_last.gain,
        "gain": lambda f: f.at_last.gain,
        "score": lambda f: f.at_last.score,
    }
    result: dict[str, dict[str, float]] = {}
    for kind in ("varied", "unseen", CLEAN, "everyday"):
        negatives = kinds.get(kind, [])
        if positives and negatives:
            result[kind] = {
                name: stands_out(*(np.array([measure(f) for f in part]) for part in (positives, negatives)))
                for name, measure in measures.items()
            }
    return result


def measured(name: str, work: Path) -> dict[str, Any]:
    """Returns everything about one LoRA; what took the network is kept in a folder."""
    case = Case(name)
    normal = benign_of(case)
    asked = [Candidate(text, kind) for kind, texts in case.kinds.items() for text in texts]
    energies, truth, astray = asked_or_kept(case, normal, [candidate.text for candidate in asked], work)
    check = results(asked, energies, [0.0, *STRENGTHS], len(normal), ALPHA)
    last = truth.get("1", {})
    return {
        "base": case.base,
        "chose the method": name in CHOOSING,
        "distance that counts as reproduced": truth.get("limit", {}).get("distance"),
        "generations that reproduce": {
            strength: float(np.mean(list(shares.values()))) for strength, shares in truth.items() if strength != "limit"
        },
        "captions that come back": sum(share >= 0.75 for share in last.values()),
        "rates": rates(case, check, astray),
        "auc": separations(case, check, last, astray),
        "captions": {
            prompt.text: {
                "kind": prompt.source,
                "finding": prompt.finding,
                "reproduced": {s: shares[prompt.text] for s, shares in truth.items() if prompt.text in shares},
                "p": [cell.shown for cell in prompt.cells],
                "gain": prompt.at_last.gain,
            }
            for prompt in check.prompts
            if prompt.source in OWN
        },
    }


def asked_or_kept(case: Case, normal: list[str], texts: list[str], work: Path) -> tuple[Tensor, Any, Any]:
    """Returns the energies of benign prompts and of texts at all strengths, and what is really reproduced."""
    kept, told = work / f"{case.name}.safetensors", work / f"{case.name}.json"
    if not (kept.exists() and told.exists()):
        denoiser: Any = to_denoiser(load_model(case.base))
        applier = Applier(denoiser, read_lora(case.file))
        if not kept.exists():
            settings: dict[str, Any] = {"draws": DRAWS, "seed": 0, "shape": denoiser.latent_shape()}
            write(kept, {"energies": measure(applier.at, [0.0, *STRENGTHS], normal + texts, **settings)[0]})
        if not told.exists():
            truth = reproduced(case, denoiser, applier)
            limit = truth["limit"]["distance"] if truth else 0.0
            told.write_text(json.dumps([truth, led_astray(case, denoiser, applier, limit)]))
    return load_file(kept)["energies"], *json.loads(told.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="where the numbers of each LoRA are kept, so that it can be resumed")
    parser.add_argument("--only", nargs="*", help="names of LoRAs; nothing is stored")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in options.only or (*KNOWN, *ZOO):
        found[name] = measured(name, options.work)
        print(f"\n{name} on {found[name]['base']}: {found[name]['generations that reproduce']}", flush=True)
        columns = list(next(iter(found[name]["rates"].values())))
        rows = [[kind, *(row.get(column, "") for column in columns)] for kind, row in found[name]["rates"].items()]
        table(["kind", *columns], rows)
        for kind, row in found[name]["auc"].items():
            print("AUC against", kind, {key: round(value, 3) for key, value in row.items()})
    if not options.only:
        store("lora_check", {"strengths": STRENGTHS, "seeds": SEEDS, "loras": found})


if __name__ == "__main__":
    main()
