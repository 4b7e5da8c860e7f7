"""How well memorized prompts are told on one's own weights: lists of prompts, measurements, rates, and a page.

Positives are prompts that the model is known to reproduce training images for, negatives are prompts that it is known
not to; see `cryptomnesia benchmark`.
"""
