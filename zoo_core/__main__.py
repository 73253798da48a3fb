"""`python -m zoo_core` is `zoo`."""

from zoo_core.cli import main

main()
