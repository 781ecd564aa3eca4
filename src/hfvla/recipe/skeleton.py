"""A new family to start from: the example plug-in (`examples/plugin_family`) under a name of its own."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Collection
from pathlib import Path

import hfvla.recipe
from hfvla.errors import HfvlaError, RecipeError
from hfvla.outputs import shown

__all__ = ["write_family"]

_PACKAGE = Path(hfvla.recipe.__file__).resolve().parents[1]
_PLACES = (_PACKAGE / "shipped" / "plugin_family", _PACKAGE.parents[1] / "examples" / "plugin_family")
"""Where the build puts it (setup.py), and where it lies in a checkout."""

_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_TEXTS = (".py", ".toml", ".yaml")

_README = """# {name}

A model family of hfvla. It works as it is, on drawn traffic lights; change it file by file, and train after each step:

```bash
pip install -e .
hfvla train tiny.yaml
python -m pytest
```

| file | yours to say |
|---|---|
| `{name}/lights.py` | the rows: a data source with its options; `group` is what a split must not cross |
| `{name}/configuration_{name}.py` | sizes, and `tiny()` for tests |
| `{name}/modeling_{name}.py` | the model; `forward` returns `loss_terms` by name |
| `{name}/processing_{name}.py`, `{name}/batches.py` | from rows to what `forward` takes |
| `{name}/evaluation.py`, `{name}/answering.py` | scores with baselines; one request of `hfvla predict` |
| `{name}/__init__.py` | parameter groups, losses, sources and metrics by the names that recipes use |

`docs/add-a-family.md` of hfvla walks through these files.
"""

_TEST = '''"""The family trains its recipe, beats its baseline, and loads from what was written."""

from pathlib import Path

from transformers import AutoModel, AutoProcessor

import {name}
from hfvla import run_recipe


def test_it_trains_and_loads(tmp_path):
    record = run_recipe(Path(__file__).parent / "tiny.yaml", ["plugins=[{name}]"], output_dir=tmp_path / "run")
    assert record["metrics"]["accuracy"] > record["baselines"]["majority"]["accuracy"]
    assert type(AutoModel.from_pretrained(tmp_path / "run" / "final")).__name__ == "{camel}"
    assert AutoProcessor.from_pretrained(tmp_path / "run" / "final").lamps
    assert {name}.FAMILY.name == "{name}"
'''


def write_family(name: str, folder: str | Path | None = None, taken: Collection[str] = ()) -> list[str]:
    """Write a package with a family that trains as it is, to be changed.

    Args:
        name: of the package and the family, e.g. "wave_reader".
        folder: new or empty; default: the name in the working folder.
        taken: names of the families there are.

    Returns:
        `list[str]`: the files, from the folder.

    Raises:
        RecipeError: no name of a package, or one that is taken.
        HfvlaError: the folder holds files or cannot be written; the installation is without the example.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise RecipeError("not a name of a family", got=name, expected="small letters, digits and _, e.g. wave_reader")
    if name in taken or name in sys.stdlib_module_names or name in ("hfvla", "torch", "transformers", "light_reader"):
        raise RecipeError("this name is taken", got=name, fix="Choose one that no family and no package has.")
    source = next((place for place in _PLACES if place.is_dir()), None)
    if source is None:
        raise HfvlaError("this installation has no example family in it", where=str(_PLACES[0]), fix="Install anew.")
    target = Path(folder or name)
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            there = [path.name for path in target.iterdir()] if target.is_dir() else [target.name]
            raise HfvlaError("a new family needs a new or empty folder", where=str(target), got=shown(there))
        return _write(source, target, name)
    except OSError as error:
        raise HfvlaError(f"the family cannot be written: {error.strerror}", where=str(target)) from error


def _write(source: Path, target: Path, name: str) -> list[str]:
    camel = "".join(part.capitalize() for part in name.split("_"))
    words = {"light_reader": name, "LightReader": camel, "light-reader": name.replace("_", "-")}
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.suffix in _TEXTS and "egg-info" not in str(path):
            text = path.read_text(encoding="utf-8")
            for old, new in words.items():
                text = text.replace(old, new)
            place = target / str(path.relative_to(source)).replace("light_reader", name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(_as_own(text, name), encoding="utf-8")
    (target / "README.md").write_text(_README.format(name=name), encoding="utf-8")
    (target / f"test_{name}.py").write_text(_TEST.format(name=name, camel=camel), encoding="utf-8")
    return sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())


def _as_own(text: str, name: str) -> str:
    """Return a file's text without what is said of the example only."""
    text = text.replace("pip install -e examples/plugin_family && hfvla train examples/plugin_family/tiny.yaml",
                        "pip install -e . && hfvla train tiny.yaml")  # fmt: skip
    return text.replace("A fifth model family for hfvla, in a package of its own", f"{name}, a model family for hfvla")
