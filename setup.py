"""What setup.cfg cannot say: recipes and the example family of this checkout go into the package that is built."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
SHIPPED = {"recipes": HERE / "recipes", "plugin_family": HERE / "examples" / "plugin_family"}


class BuildWithRecipes(build_py):
    """Copies them to hfvla/shipped in the build; a checkout (editable) is left as it is."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        for name, source in SHIPPED.items():
            target = Path(self.build_lib) / "hfvla" / "shipped" / name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info"))


setup(cmdclass={"build_py": BuildWithRecipes})
