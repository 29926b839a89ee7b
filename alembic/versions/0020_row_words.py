"""The words of rows, and the language of a dataset's texts."""

from alembic import op

revision = "0020"
down_revision = "0019"
installs_functions = True

# short waits: nobody stands behind this one for long, and adding a column that may be NULL rewrites nothing
LANGUAGE = """
DO $$
DECLARE
    waiting text := current_setting('lock_timeout');
BEGIN
    FOR attempt IN 1..300 LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '100ms', true);
            ALTER TABLE datasets ADD COLUMN language text DEFAULT 'english';
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 300 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.1);
        END;
    END LOOP;
    PERFORM set_config('lock_timeout', waiting, true);
END $$
"""


def upgrade() -> None:
    op.execute(LANGUAGE)
    op.execute(
        "CREATE TABLE row_words (kind smallint NOT NULL, row_id bigint NOT NULL, dataset_id uuid NOT NULL, language text, "
        "words tsvector, length integer, CONSTRAINT row_words_pkey PRIMARY KEY (kind, row_id), "
        "CONSTRAINT row_words_words_counted CHECK ((words IS NULL) = (length IS NULL)))"
    )
    # empty, so that nobody waits for them
    op.execute("CREATE INDEX row_words_words_idx ON row_words USING gin (words) WHERE words IS NOT NULL")
    op.execute("CREATE INDEX row_words_due_idx ON row_words (dataset_id, kind, row_id) WHERE words IS NULL")
    op.execute("CREATE INDEX row_words_dataset_id_idx ON row_words (dataset_id)")


def downgrade() -> None:
    op.execute("DROP TABLE row_words")
    op.execute("DROP FUNCTION evervec_words_restored()")
    op.execute("DROP FUNCTION evervec_words(text, text)")
    op.execute("ALTER TABLE datasets DROP COLUMN language")
