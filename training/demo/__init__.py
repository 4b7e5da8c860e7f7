"""The built-in model: its training images, its networks, and how its weights were made."""
