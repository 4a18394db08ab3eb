"""`python -m bulletproof`: the same as the command `bulletproof`."""

from bulletproof.cli.main import main

main()
