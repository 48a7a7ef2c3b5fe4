"""The shell around the core: it walks desired state, ledger and world through the pure functions.

`project` opens an environment, `survey` observes and plans, `converge` applies, `journal` persists.
The CLI and Dagster call these; nothing below knows of them.
"""
