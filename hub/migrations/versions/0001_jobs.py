"""Jobs: what was accepted."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("task_id", sa.String(), primary_key=True),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("args", postgresql.JSONB(), nullable=False),
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("idempotency_key", sa.String(), nullable=True, unique=True),
        sa.Column("submission_digest", sa.String(), nullable=False),
    )
    op.create_index("jobs_newest", "jobs", [sa.text("created_at DESC"), sa.text("task_id DESC")])


def downgrade() -> None:
    op.drop_table("jobs")
