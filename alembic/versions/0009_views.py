"""The names of the views of attached tables. The view that these read, and `search`, are made with the functions afterwards."""

from alembic import op

revision = "0009"
down_revision = "0008"

# what a release before this one does not know
FORGET = """
DO $$
DECLARE
    made record;
BEGIN
    FOR made IN SELECT s.view AS name FROM sources s WHERE s.view IS NOT NULL LOOP
        EXECUTE format('DROP VIEW IF EXISTS %I.%I', current_schema(), made.name);
    END LOOP;
    DROP VIEW IF EXISTS attached_chunks;
    FOR made IN SELECT p.oid::regprocedure AS name FROM pg_proc p WHERE p.pronamespace = current_schema()::regnamespace
        AND (p.proname = 'evervec_show_vectors' OR (p.proname = 'search' AND p.prosrc LIKE '%evervec_show_vectors()%')) LOOP
        EXECUTE format('DROP FUNCTION %s', made.name);
    END LOOP;
END $$
"""


def upgrade() -> None:
    op.execute("ALTER TABLE sources ADD COLUMN view text, ADD CONSTRAINT sources_view_key UNIQUE (view)")


def downgrade() -> None:
    op.execute(FORGET)
    op.execute("ALTER TABLE sources DROP COLUMN view")
