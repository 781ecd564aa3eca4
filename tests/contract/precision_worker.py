"""Trains cases of the precision contract as one of two processes, on rows of which some lack what a term needs.

`python -m torch.distributed.run --nproc_per_node 2 -m tests.contract.precision_worker FOLDER`, with `cases.json` in
the folder: pairs of a case's and a precision's name. Writes `<number>-<rank>.json`: the outcome of each.
"""

import json
import os
import sys
import traceback
from pathlib import Path

from .precision_cases import PRECISIONS, build, cases, run_case
from .test_term_counts import thinned


def uneven(case):
    """Return a case's model, processor and rows; what a term needs is not in all of them."""
    model, processor, rows = build(case)
    if hasattr(model.config, "negatives"):
        model.config.negatives["gather"] = True
    return model, processor, thinned(case.family, rows)


def main(folder: Path) -> None:
    known, rank = {str(case): case for case in cases()}, os.environ["RANK"]
    for number, (name, precision) in enumerate(json.loads((folder / "cases.json").read_text())):
        try:
            found = run_case(known[name], PRECISIONS[precision], uneven(known[name]), folder, processes=2)
        except Exception:  # told by the test, beside the others
            (folder / f"{number}-{rank}.json").write_text(json.dumps({"error": traceback.format_exc()}))
            raise
        outcome = {
            "terms": found.terms,
            "moved": sorted(found.moved),
            "trained": sorted(found.trained),
            "types": sorted(map(str, found.types)),
        }
        (folder / f"{number}-{rank}.json").write_text(json.dumps(outcome))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
