"""Imports: a schema for the tables that import_csv makes, and its ledger of how far each import is."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA imports")
    op.create_table(
        "imports",
        sa.Column("task_id", sa.Text(), primary_key=True),
        sa.Column("owner", sa.Uuid(), nullable=False),  # the run that may write; a later one takes over
        sa.Column("args", postgresql.JSONB(), nullable=False),
        sa.Column("plan", postgresql.JSONB(), nullable=False),  # encoding, delimiter, columns: decided once
        sa.Column("byte_offset", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("rejected", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("rejects_ref", sa.Text()),
        sa.Column("result", postgresql.JSONB()),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "import_rejects",
        sa.Column("task_id", sa.Text(), sa.ForeignKey("imports.task_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("line", sa.BigInteger(), primary_key=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("import_rejects")
    op.drop_table("imports")
    op.execute("DROP SCHEMA imports CASCADE")
