"""An optional extra holds what code imports, and nothing else; what code imports is declared."""

import ast
import configparser
import re
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from hfvla.cli.doctor.versions import REQUIREMENTS

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = {
    "faiss-cpu": "faiss",
    "pyyaml": "yaml",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "python-multipart": "multipart",
}
"""Name of the module where it is not that of the package."""

NOT_IMPORTED = {
    "ninja": "DeepSpeed compiles with it",
    "packaging": "metaworld imports it and does not say so",
    "num2words": "transformers reads SmolVLM's prompts with it",
    "onnxscript": "torch.onnx exports with it",
    "python-multipart": "FastAPI reads forms with it",
}
"""Packages that somebody else imports, and why they are asked for."""

TOOLS = ("dev", "docs", "all")
COUNTED_ON = {"cycler", "pandas", "pyarrow", "pydantic_core", "tqdm"}
"""Modules that a required package brings for certain (matplotlib, datasets, pydantic, FastAPI, transformers)."""

HOSTS = {"IPython", "lmms_eval", "vlmeval"}
"""Programs that import hfvla, and that it imports in turn only where it runs inside them."""


def declared() -> dict[str, list[str]]:
    """Package names by extra; "" for what is always installed."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    sections = {"": parser["options"]["install_requires"], **dict(parser["options.extras_require"])}
    return {
        extra: [re.split(r"[<>=;\[ ]", line.strip())[0].lower() for line in text.splitlines()
                if line.strip() and not line.strip().startswith(("#", "hfvla["))]
        for extra, text in sections.items()
    }  # fmt: skip


def module_of(package: str) -> str:
    return IMPORTS.get(package, package.replace("-", "_"))


@cache
def named_in_code() -> tuple[set[str], set[str]]:
    """Modules that the package imports, and those that it names in a text of one word (`find_spec("wandb")`)."""
    imported, named = set(), set()
    for path in sorted((ROOT / "src" / "hfvla").rglob("*.py")):
        if path.name == "versions.py":  # the doctor's list is no use of a package
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
                named.add(node.value)
    return imported, named


@pytest.mark.parametrize("extra", [name for name in declared() if name and name not in TOOLS])
def test_an_extra_holds_what_code_imports(extra):
    imported, named = named_in_code()
    unused = [
        package for package in declared()[extra]
        if module_of(package) not in imported | named and package not in NOT_IMPORTED
    ]  # fmt: skip
    assert not unused, f"extra '{extra}' asks for packages that no code imports: {unused}"


def test_what_code_imports_is_declared():
    imported, _ = named_in_code()
    known = {module_of(package) for packages in declared().values() for package in packages}
    foreign = imported - set(sys.stdlib_module_names) - {"hfvla", "__future__"}
    assert not {name for name in foreign if name not in known | COUNTED_ON | HOSTS}


def test_the_doctor_looks_for_what_the_extras_have():
    wanted = {(extra, package) for extra, packages in declared().items() if extra not in TOOLS for package in packages}
    found = {(one.extra, one.package.lower()) for one in REQUIREMENTS}
    assert wanted == found


def test_names_of_modules_are_right():
    there = packages_distributions()
    for package, module in IMPORTS.items():
        if module in there:
            assert package in [name.lower() for name in there[module]]
