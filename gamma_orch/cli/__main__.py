"""`python -m gamma_orch.cli` is `gamma`."""

from gamma_orch.cli import main

main()
