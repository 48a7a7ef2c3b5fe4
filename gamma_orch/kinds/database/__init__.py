"""The database family: Database, Schema, Table, Role and Index, on PostgreSQL 15 to 18.

How the files hang together: `catalog` reads a database in one round trip, `passing` runs one pass of
observation over it, `marks` says what is ours, `sql` quotes. Each kind has a file with its spec, its
normalisation and its provider; what a kind needs beyond that has a file of its own beside it.
"""
