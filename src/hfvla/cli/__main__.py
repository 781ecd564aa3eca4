"""`python -m hfvla.cli`."""

from hfvla.cli.commands import main

main()
