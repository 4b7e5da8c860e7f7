"""Which prompts a LoRA memorizes that its base does not: its file, its prompts, and its model with and without it."""

from .applying import Applier
from .captions import prompts_in
from .checking import check_lora
from .prompts import Candidate, from_metadata
from .reading import LoraFile, read_lora
from .results import LoraCheck, PromptFinding
from .updates import Update

__all__ = [
    "Applier",
    "Candidate",
    "LoraCheck",
    "LoraFile",
    "PromptFinding",
    "Update",
    "check_lora",
    "from_metadata",
    "prompts_in",
    "read_lora",
]
