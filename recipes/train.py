"""Entry point for `accelerate launch recipes/train.py RECIPE [key=value ...] [--output DIR] [--overwrite]`.

The same as `hfvla train`, as a file that a launcher can start.
"""

import sys

from hfvla.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
