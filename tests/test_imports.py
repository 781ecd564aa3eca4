"""The import arrows of the house and what no file in it may do, read from the syntax trees of src/hfvla."""

import ast
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "hfvla"

# From the ground up. A room imports from its own layer and from those before it, never from a later one.
LAYERS = (
    ("errors", "outputs", "paths", "sealing", "loading", "noise", "fetching", "_moved"),
    ("family", "nn", "losses", "backbones", "data", "worlds", "metrics"),
    ("models",),
    ("cache", "plugins", "recipe", "registry"),
    ("evaluation",),
    ("training", "export", "hub", "serve"),
    ("cli",),
)
LAYER = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
ROOT_ROOM = "__init__"  # `hfvla` itself: may name every room, and no room below the CLI may name it

# The same inside `training/`.
TRAINING = ("stage", "lora", "checkpoint", "trainer", "run", "estimate")

MAX_LINES, WARN_LINES, MAX_FUNCTION_LINES = 400, 250, 50
PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve"}
MODULE_PATH = re.compile(r"^hfvla(\.\w+)+(:\w+(\.\w+)*)?$")


@lru_cache(maxsize=2)  # a file is asked several things in a row; the trees of all would be hundreds of megabytes
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


@dataclass(frozen=True)
class SourceFile:
    """One file of the package: its dotted module name, text and syntax tree."""

    module: str
    text: str
    is_package: bool = False

    @property
    def tree(self) -> ast.Module:
        return parsed(self.text)

    @property
    def room(self) -> str:
        parts = self.module.split(".")
        return parts[1] if len(parts) > 1 else ROOT_ROOM

    @property
    def family(self) -> str | None:
        parts = self.module.split(".")
        return parts[2] if self.room == "models" and len(parts) > 2 else None


def load_sources(folder: Path = SOURCE) -> list[SourceFile]:
    files = []
    for path in sorted(folder.rglob("*.py")):
        parts = ["hfvla", *path.relative_to(folder).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        files.append(SourceFile(".".join(parts[:-1] if is_package else parts), path.read_text("utf-8"), is_package))
    return files


def docstrings(tree: ast.Module) -> set[int]:
    """Identities of the constants that are documentation, not code."""
    found = set()
    for node in ast.walk(tree):
        for statement in getattr(node, "body", None) if isinstance(getattr(node, "body", None), list) else []:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                found.add(id(statement.value))
    return found


def code_strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    documentation = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.lineno, node.value


def imported_modules(file: SourceFile) -> Iterator[tuple[int, str]]:
    """Every hfvla module that the file imports, at module or function level, or names as "module:attribute"."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = file.module.split(".") if file.is_package else file.module.split(".")[:-1]
                package = package[: len(package) - node.level + 1]
                base = ".".join([*package, *([node.module] if node.module else [])])
            if base in {"hfvla", "hfvla.models"}:  # the names behind it may be rooms or families
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, base
    for line, text in code_strings(file.tree):
        if MODULE_PATH.match(text):
            yield line, text.split(":")[0]


def check_arrows(file: SourceFile) -> list[str]:
    """Problems of one file with the layers above; empty when it keeps them."""
    problems = []
    if file.room != ROOT_ROOM and file.room not in LAYER:
        return [f"{file.module}: room '{file.room}' is in no layer; add it to LAYERS in this test and to the docs"]
    for line, target in imported_modules(file):
        parts = target.split(".")
        if parts[0] != "hfvla" or file.room == ROOT_ROOM:
            continue
        room = parts[1] if len(parts) > 1 else ROOT_ROOM
        where = f"{file.module}:{line}"
        if room not in LAYER:
            if file.room != "cli" and room != "__version__":
                problems.append(f"{where}: imports from the package itself ({target}), which stands above every room")
        elif LAYER[room] > LAYER[file.room]:
            problems.append(f"{where}: {file.room} imports {target}, and {room} stands above it")
        elif room == "models" and file.family and len(parts) > 2 and parts[2] != file.family:
            problems.append(f"{where}: family {file.family} imports family {parts[2]}")
    return problems


def module_graph(files: list[SourceFile]) -> dict[str, set[str]]:
    """Which modules of the package each module imports, for types only and inside functions included."""
    modules = {file.module for file in files}
    graph: dict[str, set[str]] = {}
    for file in files:
        found = graph.setdefault(file.module, set())
        for node in ast.walk(file.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names} & modules
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= (names & modules) or ({node.module} & modules)
    return graph


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Sets of modules that reach each other."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen, todo = set(), list(graph[start])
        while todo:
            module = todo.pop()
            if module not in seen:
                seen.add(module)
                todo += graph.get(module, ())
        reach[start] = seen
    found = [{other for other in reach[module] if module in reach.get(other, ())} for module in graph]
    return [one for number, one in enumerate(found) if one and one not in found[:number]]


def check_training(file: SourceFile) -> list[str]:
    """Imports between the rooms of `training/` that run upward."""
    parts = file.module.split(".")
    if file.room != "training" or len(parts) < 3:
        return []
    problems = [] if parts[2] in TRAINING else [f"{file.module}: room '{parts[2]}' is not in TRAINING"]
    for line, target in imported_modules(file):
        room = target.split(".")[2] if target.startswith("hfvla.training.") else parts[2]
        if parts[2] in TRAINING and room in TRAINING and TRAINING.index(room) > TRAINING.index(parts[2]):
            problems.append(f"{file.module}:{line}: {parts[2]} imports {target}, and {room} stands above it")
    return problems


def names_in_code(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Identifiers and strings, without docstrings and comments."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        for attribute in ("id", "attr", "arg", "name", "module"):
            value = getattr(node, attribute, None)
            if isinstance(value, str):
                yield line, value
    yield from code_strings(tree)


def check_no_family_named(file: SourceFile, families: set[str]) -> list[str]:
    if file.family:
        return []
    found = []
    for line, name in names_in_code(file.tree):
        flat = re.sub(r"[\W_]", "", name).lower()
        found += [f"{file.module}:{line}: names the family {family} ({name!r})" for family in sorted(families)
                  if family.replace("_", "") in flat]  # fmt: skip
    return found


def check_habits(file: SourceFile) -> list[str]:
    """No print outside the CLI, no pickle in any form, no code from a hub."""
    problems = []
    for node in ast.walk(file.tree):
        where = f"{file.module}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            if file.room != "cli":
                problems.append(f"{where}: print(); use logging")
        elif isinstance(node, ast.Attribute) and node.attr in {"load", "save"}:
            if isinstance(node.value, ast.Name) and node.value.id == "torch":
                problems.append(f"{where}: torch.{node.attr} reads and writes pickles; use safetensors or JSON")
        elif isinstance(node, ast.keyword) and node.arg in {"trust_remote_code", "allow_pickle"}:
            if isinstance(node.value, ast.Constant) and node.value.value is True:
                problems.append(f"{file.module}:{node.value.lineno}: {node.arg}=True")
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "trust_remote_code" and ast.unparse(value) == "True":
                    problems.append(f"{where}: trust_remote_code=True")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            problems += [f"{where}: imports {name}" for name in modules if name.split(".")[0] in PICKLES]
            if isinstance(node, ast.ImportFrom) and node.module == "torch":
                problems += [f"{where}: torch.{a.name}" for a in node.names if a.name in {"load", "save"}]
    return problems


def check_size(file: SourceFile) -> list[str]:
    lines = file.text.count("\n")
    if lines > WARN_LINES:
        warnings.warn(f"{file.module} has {lines} lines; split it before {MAX_LINES}", stacklevel=2)
    return [f"{file.module}: {lines} lines, and {MAX_LINES} is the most"] if lines > MAX_LINES else []


def check_functions(file: SourceFile) -> list[str]:
    """Functions longer than the house allows; their docstring does not count."""
    problems = []
    for node in ast.walk(file.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            lines = node.end_lineno - node.lineno + 1
            lines -= first.end_lineno - first.lineno + 1 if documented else 0
            if lines > MAX_FUNCTION_LINES:
                problems.append(f"{file.module}:{node.lineno}: {node.name} has {lines} lines of code")
    return problems


FILES = load_sources()
FAMILIES = {file.family for file in FILES if file.family}


def test_the_package_is_found():
    assert {file.room for file in FILES} >= {"errors", "family", "data", "models"}
    assert FAMILIES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.module)
def test_file_keeps_the_house(file):
    problems = check_arrows(file) + check_training(file) + check_no_family_named(file, FAMILIES) + check_habits(file)
    problems += check_size(file) + check_functions(file)
    assert not problems, "\n".join(problems)


def test_no_modules_import_in_a_circle():
    assert circles(module_graph(FILES)) == []


def test_a_circle_is_found():
    code = {"hfvla.a": "from hfvla import b", "hfvla.b": "if TYPE_CHECKING:\n    from hfvla.c import C",
            "hfvla.c": "def f():\n    import hfvla.a", "hfvla.d": "import hfvla.a"}  # fmt: skip
    graph = module_graph([SourceFile(module, text) for module, text in code.items()])
    assert circles(graph) == [{"hfvla.a", "hfvla.b", "hfvla.c"}]


def test_the_rooms_of_training_import_downward():
    bad = SourceFile("hfvla.training.stage.plan", "from hfvla.training.run.run import RecipeRun")
    assert len(check_training(bad)) == 1 and "run stands above it" in check_training(bad)[0]
    assert not check_training(SourceFile("hfvla.training.run.run", "from hfvla.training.stage.plan import StagePlan"))
    assert "not in TRAINING" in check_training(SourceFile("hfvla.training.attic.old", ""))[0]


@pytest.mark.parametrize(
    ("module", "code", "problem"),
    [
        ("hfvla.data.samples", "from hfvla.training.run.run import train", "training stands above it"),
        ("hfvla.data.samples", "def f():\n    import hfvla.recipe", "recipe stands above it"),
        ("hfvla.data.samples", "from ..evaluation import report", "evaluation stands above it"),
        ("hfvla.evaluation.report", "from hfvla import training", "training stands above it"),
        ("hfvla.evaluation.report", "from hfvla import AutoThing", "stands above every room"),
        ("hfvla.errors", "import hfvla", "stands above every room"),
        ("hfvla.losses.text", "import importlib\nimportlib.import_module('hfvla.cli')", "cli stands above it"),
        ("hfvla.models.one", "BUILD = 'hfvla.models.two.data:build'", "family one imports family two"),
        ("hfvla.models.one.modeling", "from ..two import modeling", "family one imports family two"),
        ("hfvla.models.one.modeling", "from hfvla.models import two", "family one imports family two"),
        ("hfvla.attic.old", "x = 1", "in no layer"),
    ],
)
def test_arrows_catch(module, code, problem):
    found = check_arrows(SourceFile(module, code))
    assert len(found) == 1 and problem in found[0]


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("hfvla.training.run.run", "from hfvla.evaluation.report import write\nfrom .plan import StagePlan"),
        ("hfvla.models.one.modeling", "from .configuration import Config\nfrom hfvla.losses import text"),
        ("hfvla.models.one", "PATH = 'hfvla.models.one.modeling:Model'"),
        ("hfvla.data.samples", '"""Rendered by hfvla.evaluation.plots."""\nimport torch.nn'),
        ("hfvla.cli", "from hfvla import __version__\nfrom hfvla.training import run"),
    ],
)
def test_arrows_allow(module, code):
    assert check_arrows(SourceFile(module, code)) == []


@pytest.mark.parametrize(
    "code",
    [
        "NAMES = ['big_robot']",
        "def build_big_robot(): ...",
        "class BigRobotTrainer: ...",
        "label = f'a {x} of big-robot'",
        "run(big_robot=True)",
        "import hfvla.models.big_robot",
    ],
)
def test_a_named_family_is_caught(code):
    assert check_no_family_named(SourceFile("hfvla.training.run.run", code), {"big_robot"})
    assert not check_no_family_named(SourceFile("hfvla.models.big_robot.x", code), {"big_robot"})


def test_documentation_may_name_a_family():
    code = '"""For example big_robot."""\n\ndef f():\n    """As in big_robot."""  # big_robot\n'
    assert not check_no_family_named(SourceFile("hfvla.training.run.run", code), {"big_robot"})


@pytest.mark.parametrize(
    "code",
    [
        "print('x')",
        "import torch\ntorch.load('x')",
        "from torch import save",
        "import pickle",
        "def f():\n    from joblib import dump",
        "f(trust_remote_code=True)",
        "OPTIONS = {'trust_remote_code': True}",
        "np.load('x', allow_pickle=True)",
    ],
)
def test_bad_habits_are_caught(code):
    assert len(check_habits(SourceFile("hfvla.training.run.run", code))) == 1


def test_good_habits_pass():
    code = "f(trust_remote_code=recipe.trust)\nconsole.print('x')\njson.load(file)\nload_file('x.safetensors')"
    assert not check_habits(SourceFile("hfvla.training.run.run", code))
    assert not check_habits(SourceFile("hfvla.cli", "print('x')"))


def test_long_files_are_caught():
    assert check_size(SourceFile("hfvla.errors", "\n" * 250)) == []
    with pytest.warns(UserWarning, match="has 251 lines"):
        assert check_size(SourceFile("hfvla.errors", "\n" * 251)) == []
    with pytest.warns(UserWarning), pytest.raises(AssertionError, match="401 lines"):
        test_file_keeps_the_house(SourceFile("hfvla.errors", "\n" * 401))


def test_long_functions_are_caught():
    code = 'def f():\n    """One.\n\n    Two.\n    """\n' + "    x = 1\n" * 49
    assert check_functions(SourceFile("hfvla.errors", code)) == []
    assert "f has 51 lines" in check_functions(SourceFile("hfvla.errors", code + "    x = 1\n"))[0]


def loaded_after(statement: str) -> set[str]:
    """Return which heavy packages a fresh interpreter holds after the statement."""
    code = f"import sys\n{statement}\nprint(*[m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "statement", ["import hfvla", "import hfvla.cli", "import hfvla.recipe", "import hfvla.registry"]
)
def test_light_imports_stay_light(statement):
    assert loaded_after(statement) == set()


def test_heavy_imports_would_be_seen():
    assert "datasets" in loaded_after("import types\nsys.modules['datasets'] = types.ModuleType('datasets')")
