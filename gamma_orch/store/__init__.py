"""The ledger: an append-only log of events for each environment, on SQLite or PostgreSQL.

`database` is the connection, `ledger` the log with its projection, `lease` who may append.
"""
