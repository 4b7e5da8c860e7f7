"""What a LoRA memorizes: its file, its prompts, and its model with and without it."""

from .reading import LoraFile, read_lora
from .updates import Update

__all__ = ["LoraFile", "Update", "read_lora"]
