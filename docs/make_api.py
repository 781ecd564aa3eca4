"""Write docs/api/, a page a room with every public module of the package: `python docs/make_api.py`.

A page is made from the tree, so a module that is added appears; `tests/test_docs.py` says when this was forgotten.
"""

from __future__ import annotations

import ast
from pathlib import Path

DOCS = Path(__file__).resolve().parent
SOURCE = DOCS.parent / "src" / "hfvla"

ROOMS = {
    "contract": (
        "The contract",
        ("errors", "family", "registry", "plugins", "fetching", "loading", "noise", "outputs", "paths", "sealing"),
    ),
    "recipe": ("Recipes", ("recipe",)),
    "models": ("Families", ("models",)),
    "nn": ("Blocks and losses", ("nn", "losses", "backbones")),
    "data": ("Data", ("data",)),
    "worlds": ("Worlds", ("worlds",)),
    "metrics": ("Metrics", ("metrics",)),
    "training": ("Training", ("training", "cache")),
    "evaluation": ("Evaluation", ("evaluation",)),
    "export": ("Hub and export", ("hub", "export")),
    "serve": ("Serving", ("serve",)),
    "cli": ("Command line", ("cli",)),
}
"""Page by name: its title, and the rooms (files or folders of the package) that it covers."""


def public_modules() -> list[str]:
    """Return every module that offers something (`__all__`, or a class or function without a leading underscore)."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if any(part.startswith("_") and part != "__init__" for part in parts):
            continue
        tree = ast.parse(path.read_text("utf-8"))
        definitions = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
        offers = any(not node.name.startswith("_") for node in definitions)
        listed = any(isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__" for node in tree.body)
        if offers or (listed and parts[-1] != "__init__"):
            found.append(".".join(("hfvla", *(part for part in parts if part != "__init__"))))
    return sorted(set(found))


def pages() -> dict[Path, str]:
    """Return the text of each page by its path."""
    modules = public_modules()
    made = {}
    for name, (title, rooms) in ROOMS.items():
        inside = [module for module in modules if module.split(".")[1] in rooms]
        body = "\n".join(f"::: {module}\n" for module in inside)
        made[DOCS / "api" / f"{name}.md"] = f"# {title}\n\n{body}"
    return made


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
