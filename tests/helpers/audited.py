"""Runs of an audit, written as the engine writes them, and what their reports hold."""

import base64
import json
import re

import numpy as np
import torch

from cryptomnesia.audit import table
from cryptomnesia.audit.manifest import Manifest
from cryptomnesia.audit.prompts import PromptJob
from cryptomnesia.audit.rows import Done
from cryptomnesia.audit.shards import Shards
from cryptomnesia.calibration import Calibration, Combination
from cryptomnesia.guard import Guard

from .markup import words

HOSTILE = [
    '</script><script>document.title="hacked"</script>',
    "<img src=x onerror=\"document.title='hacked'\">",
    "\u2028line\u2029 & 'quotes' \"double\" `tick` ${document.title='hacked'}",
    "]]> <!-- --> &lt;b&gt; \\u003c \x1b \u202e reversed",
    "猫の絵 🦊 e\u0301",
    "long " * 2000,
]
KNOWN = Calibration(
    fingerprint="ab" * 32,
    family="toy",
    dtype="torch.float32",
    latent_shape=(4, 8, 8),
    draws=4,
    alpha=0.01,
    seed=0,
    created="2026-01-01",
    combination=Combination([1.0] * 8),
    scores=np.linspace(-1, 1, 200).tolist(),
)


def write_run(folder, kind, rows, records, schema, rejects=(), known=None, **about):
    """A run as the engine writes it; rows that are neither a record nor a reject are still to be done."""
    told = {"finished": True, "model": "ab" * 32, "draws": 4, "started": "2026-01-01T00:00:00+00:00"}
    if known is not None:
        told |= {"calibration": known.identity, "alpha": known.alpha}
    Manifest(kind, {"model": "toy"}, {}, "7", rows, **told | about).save(folder)
    Shards(folder, schema, rows).add(Done(list(records), list(rejects)))
    return folder


def unopened() -> tuple[Guard, int]:
    """Of a job that is never opened."""
    raise NotImplementedError


def prompts_run(folder, prompts, scores, known: Calibration | None = KNOWN, rejects=(), rows=None, first=0, **about):
    """The prompts are the rows from `first` on."""
    p_values = [None] * len(prompts) if known is None else known.p_of(torch.tensor(scores)).tolist()
    records = []
    for row, (prompt, score, p_value) in enumerate(zip(prompts, scores, p_values, strict=True), first):
        verdict = "uncalibrated" if known is None or p_value is None else "clear"
        verdict = "memorized" if p_value is not None and p_value <= 0.01 else verdict
        record = {"row": row, "prompt": prompt, "score": score, "p_value": p_value, "verdict": verdict}
        records.append(record | dict.fromkeys(("iso", "aniso", "aniso_flat", "rows_spent"), 1))
    schema = PromptJob(unopened).schema()
    rows = first + len(prompts) + len(rejects) if rows is None else rows
    return write_run(folder, "prompts", rows, records, schema, rejects, known, **about)


def many(count):
    """Prompts of unlike words and spread scores, the highest of them flagged."""
    return [f"word{i} thing{i * 7} place{i * 13}" for i in range(count)], np.linspace(-1.2, 1.4, count).tolist()


def data_of(page):
    """What audit.js reads, decoded: columns by name, and texts in their order."""
    found = re.search(r'<script type="application/json" id="audit-data">(.*?)</script>', page.read_text("utf-8"))
    assert found is not None
    data = json.loads(found.group(1))
    columns = {
        column["key"]: np.frombuffer(base64.b64decode(column["data"]), table.KINDS[column["kind"]])
        for column in data["columns"]
    }
    texts = data["texts"]
    if texts is None:
        texts = [None] * data["rows"]
        for file in sorted((page.parent / data["folder"]).iterdir()):
            first, found = json.loads(
                "[" + file.read_text("ascii").removeprefix("auditTexts(").removesuffix(");\n") + "]"
            )
            assert texts[first : first + len(found)] == [None] * len(found)
            texts[first : first + len(found)] = found
    assert len(texts) == data["rows"] == len(columns["row"])
    return columns, texts


def words_of(page):
    """What is to be read on the page of that path."""
    return words(page.read_text("utf-8"))
