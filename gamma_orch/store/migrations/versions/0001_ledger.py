"""The ledger's first tables: environments (head and lease), events, and entries (the projection)."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "environments",
        sa.Column("environment", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),  # of the last event
        sa.Column("state", sa.BigInteger, nullable=False),  # of the last event that changed an entry
        sa.Column("token", sa.BigInteger, nullable=False),  # the newest fencing token
        sa.Column("holder", sa.Text, nullable=False),  # JSON; empty: the lease is free
        sa.Column("expires", sa.Text, nullable=False),  # UTC, RFC 3339
    )
    op.create_table(
        "events",
        sa.Column("environment", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=True),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
    )
    op.create_index("events_address", "events", ["environment", "address", "seq"])
    op.create_table(
        "entries",
        sa.Column("environment", sa.Text, primary_key=True),
        sa.Column("address", sa.Text, primary_key=True),
        sa.Column("entry", sa.Text, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("the ledger is never taken back: an older Gamma refuses a newer one's")
