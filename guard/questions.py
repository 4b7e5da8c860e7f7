"""The questions that users can ask, each named once: as a command, as ComfyUI nodes, as a finding and as a page.

The command line, the nodes' menu, the tests and the tables of the documentation read this list; a new question is one
entry here, and the files that it names.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        command: Name of the command; its function has that name, in the module of that name in `commands`.
        help: One line for lists of commands.
        nodes: Files in `nodes/`, without `.py`, in the order of the menu.
        finding: Kind of what the answer leaves in a provenance file, see `sidecar.findings`; None where it leaves none.
        page: Name of the HTML page that the command writes; None where it writes none.
    """

    command: str
    help: str
    nodes: tuple[str, ...] = ()
    finding: str | None = None
    page: str | None = None


QUESTIONS = (
    Question(
        "demo",
        "See it work: twelve prompts on the built-in model, judged first and sampled afterwards.",
        nodes=("load_demo_model",),
        page="index.html",
    ),
    Question(
        "check",
        "Is the model likely to reproduce training data for these prompts?",
        nodes=(
            "memorization_check",
            "memorization_gate",
            "memorization_table",
            "compare_loras",
            "guarded_ksampler",
            "guarded_guider",
        ),
    ),
    Question(
        "calibrate",
        "Measure benign prompts on a model once, so that checks of it can give verdicts.",
        nodes=("calibrate_model",),
    ),
    Question(
        "benchmark",
        "How well are memorized prompts told on your own weights? Needs lists of prompts whose answer is known.",
        page="index.html",
    ),
    Question(
        "rewrite",
        "Mitigate prompts by as few words as it takes, and show the changes.",
        nodes=("rewrite_prompt", "mitigate_conditioning", "guarded_noise"),
        page="index.html",
    ),
    Question(
        "locate",
        "Make an image, and show which part of it is likely reproduced.",
        nodes=("memorization_heatmap",),
    ),
    Question(
        "signature",
        "Measure how a model's denoiser errs, so that it can be recognised.",
        nodes=("spectral_signature", "save_signature", "load_signature"),
        finding="signature",
    ),
    Question("identify", "Which model of a library is this?"),
    Question(
        "attribute",
        "Which of these models made this image, or none of them?",
        nodes=("attribution_candidate", "attribute_image"),
        finding="attribution",
    ),
    Question(
        "compare",
        "Is an image a copy of one of mine, or of a part of one?",
        nodes=("compare_references",),
        finding="comparison",
        page="compare.html",
    ),
    Question(
        "extract",
        "Does a model hold my pictures? What it makes of their words, beside them, as evidence to hand on.",
        page="index.html",
    ),
    Question(
        "membership",
        "Was a model trained on some of these images?",
        nodes=("membership_evidence",),
        finding="membership",
    ),
    Question(
        "lineage",
        "Which model of a pool does this one come from, or none of them?",
        nodes=("lineage_pool_model", "model_lineage"),
        finding="lineage",
        page="lineage.html",
    ),
    Question(
        "lora",
        "Which prompts does a LoRA memorize that its base does not?",
        nodes=("lora_check",),
        page="index.html",
    ),
    Question(
        "verify",
        "Are these images still as their provenance says, and who vouches for it?",
        nodes=("save_image", "verify_provenance"),
    ),
    Question("disclose", "Does what a folder or a workflow produces carry what laws on AI-made content ask for?"),
    Question(
        "audit",
        "Check whole prompt logs or folders of images; can be resumed.",
        page="report.html",
    ),
    Question("keys", "Make keys to sign images with, and say whom you trust."),
)
