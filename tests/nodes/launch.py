"""Starts ComfyUI's own main.py: python launch.py TREE PACKAGES [ComfyUI's arguments]."""

import runpy
import sys
from pathlib import Path

from shim import add  # a neighbour: this file is run as a script

tree, packages = map(Path, sys.argv[1:3])
sys.argv = [str(tree / "main.py"), *sys.argv[3:]]
sys.path[0] = str(tree)  # instead of this folder, whose names would be taken for ComfyUI's
add(packages)
runpy.run_path(sys.argv[0], run_name="__main__")
