"""How long `hfvla plan` takes for each shipped recipe, and how many lines it answers in.

Each recipe is planned in one process after the imports, by processor time, which other programs lengthen less than the
clock; the imports are measured beside, and so is `import torch` alone in a process of its own, the yardstick of the
machine. A command takes the imports and the plan. Prints a table and writes it as JSON.

Run:  OMP_NUM_THREADS=1 python benchmarks/plan_recipes.py            # two minutes on two cores
"""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from common import arguments, cores, cpu_name, versions, write_result
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
_TORCH = "import time; begin = time.process_time(); import torch; print(time.process_time() - begin)"


def plan(path: Path) -> dict[str, Any]:
    """Plan one recipe as the command does; return its processor seconds and lines."""
    from typer.testing import CliRunner

    from hfvla.cli import app

    begin = time.process_time()
    answer = CliRunner().invoke(app, ["plan", str(path)])
    return {
        "seconds": round(time.process_time() - begin, 2),
        "lines": len(answer.stdout.splitlines()),
        "exit_code": answer.exit_code,
    }


def main() -> None:
    """Plan them all."""
    options = arguments(__file__, __doc__)
    options.add_argument("--recipes", nargs="*", help="such as ember_vlm/smoke.yaml; default: all")
    given = options.parse_args()
    warnings.simplefilter("ignore")
    torch_s = float(subprocess.run([sys.executable, "-c", _TORCH], capture_output=True, text=True, check=True).stdout)
    recipes = sorted((ROOT / "recipes").glob("*/*.yaml"))
    recipes = [path for path in recipes if path.parent.name != "accelerate" and "compare" not in path.stem]
    recipes = [ROOT / "recipes" / name for name in given.recipes] if given.recipes else recipes
    first = plan(ROOT / "recipes/ember_vlm/smoke.yaml")
    again = plan(ROOT / "recipes/ember_vlm/smoke.yaml")
    imports_s = round(time.process_time() - again["seconds"] * 2, 2)
    rows = {path.relative_to(ROOT / "recipes").as_posix(): plan(path) for path in recipes}
    table = Table("recipe", "plan, s", "with imports, s", "lines")
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["seconds"]):
        table.add_row(name, f"{row['seconds']:.2f}", f"{row['seconds'] + imports_s:.1f}", str(row["lines"]))
    Console().print(table)
    slowest = max(row["seconds"] for row in rows.values())
    result = {
        "import_torch_seconds": round(torch_s, 2),
        "import_all_seconds": imports_s,
        "first_command_seconds": first["seconds"],
        "slowest_over_import_torch": round((slowest + imports_s) / torch_s, 2),
        "most_lines": max(row["lines"] for row in rows.values()),
        "recipes": rows,
        "machine": {"cpu": cpu_name(), "cores": cores(), **versions("torch", "transformers")},
    }
    Console().print({name: value for name, value in result.items() if name not in ("recipes", "machine")})
    write_result(given.output, result)


if __name__ == "__main__":
    main()
