"""${message}."""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    ${upgrades if upgrades else "raise RuntimeError('write the upgrade')"}


def downgrade() -> None:
    ${downgrades if downgrades else "raise RuntimeError('write the downgrade')"}
