"""What setup.cfg cannot say: the recipes of this checkout go into the package that is built."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

RECIPES = Path(__file__).resolve().parent / "recipes"


class BuildWithRecipes(build_py):
    """Copies recipes/ to hfvla/shipped/recipes in the build; a checkout (editable) is left as it is."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "hfvla" / "shipped" / "recipes"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(RECIPES, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


setup(cmdclass={"build_py": BuildWithRecipes})
