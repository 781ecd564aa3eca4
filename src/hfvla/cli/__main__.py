"""`python -m hfvla.cli`."""

from hfvla.cli import main

main()
