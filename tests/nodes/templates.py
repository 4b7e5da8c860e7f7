"""The pack's templates by their names, which ComfyUI's template browser shows as they are: sentences."""

CHECK = "Check prompts before sampling"
GATE = "Stop or rewrite a memorized prompt"
LOCATE = "Repaint the memorized part of an image"
ATTRIBUTE = "Tell which model made an image"
SAVE = "Save an image with its provenance"
MEMBERSHIP = "Test whether a model was trained on a folder"
LINEAGE = "Tell which model another one comes from"
WITH_MODEL = (CHECK, GATE, LOCATE, ATTRIBUTE, SAVE, MEMBERSHIP)
NAMES = (*WITH_MODEL, LINEAGE)
