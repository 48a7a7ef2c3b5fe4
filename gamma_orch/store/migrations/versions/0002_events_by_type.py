"""The newest events of one type are asked for by every tick: released, planned, drifted."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_index("events_type", "events", ["environment", "type", "seq"])


def downgrade() -> None:
    raise NotImplementedError("the ledger is never taken back: an older Gamma refuses a newer one's")
