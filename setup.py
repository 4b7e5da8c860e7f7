"""The library lies in `guard/` and is called `cryptomnesia`: what pyproject.toml cannot say of packages it finds."""

from setuptools import find_packages, setup

setup(
    packages=["cryptomnesia", *(f"cryptomnesia.{name}" for name in find_packages("guard"))],
    package_dir={"cryptomnesia": "guard"},
)
