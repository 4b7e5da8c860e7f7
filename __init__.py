"""Cryptomnesia as a ComfyUI node pack. As a library it is `guard/`, installed under the name `cryptomnesia`."""

import sys

WEB_DIRECTORY = "./web"

if "folder_paths" in sys.modules:  # inside ComfyUI; test runners import this file, too
    from .nodes.extension import comfy_entrypoint

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
