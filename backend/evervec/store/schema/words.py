"""The words of rows as PostgreSQL makes them: the function that reduces a text to stems, and what triggers say of it."""

from evervec.domain.ranking import UNDERSCORE
from evervec.store.schema.embeddables import Embeddable

WORDS_FUNCTION = "evervec_words"
QUIET = "STABLE PARALLEL SAFE SET client_min_messages = error"
"""How the function is: a notice for each word that is too long to be kept would fill the log."""

# The stems of a text's words, each once. The parser takes words with underscores apart: with letters in their place, the
# whole name is found, too. Then come the parts of names that hold dots, slashes or humps.
WORDS = f"""
DECLARE
    whole text := left(body, 50000); -- a tsvector has an end
    config regconfig := coalesce(
        (SELECT c.oid FROM pg_ts_config c WHERE c.cfgname = language AND c.cfgnamespace = 'pg_catalog'::regnamespace),
        'pg_catalog.simple'::regconfig
    );
    found tsvector := strip(to_tsvector(config, replace(whole, '_', '{UNDERSCORE}')));
BEGIN
    IF whole ~ '[[:alnum:]][^[:space:][:alnum:]'']+[[:alnum:]]|[[:lower:]][[:upper:]]' THEN
        whole := regexp_replace(whole, '([[:lower:][:digit:]])([[:upper:]])', '\\1 \\2', 'g');
        found := found || strip(to_tsvector(config, regexp_replace(whole, '[^[:alnum:]'']+', ' ', 'g')));
    END IF;
    RETURN coalesce(found, '');
END"""

# Making the words would take the writer longer than all the rest: it says that they are due, and a worker makes them.
KEEP_ROW_WORDS = """
        INSERT INTO {schema}.row_words (kind, row_id, dataset_id) VALUES ({kind}, NEW.{key}, NEW.{dataset})
        ON CONFLICT (kind, row_id) DO UPDATE SET dataset_id = EXCLUDED.dataset_id, language = NULL, words = NULL, length = NULL;
"""

# A dump of the data alone brings words that the triggers of its rows made again, or are about to make.
WORDS_RESTORED = """
BEGIN
    DELETE FROM {schema}.row_words WHERE kind = NEW.kind AND row_id = NEW.row_id;
    RETURN NEW;
END"""


def kept_words(schema: str, embeddable: Embeddable, *, made: bool) -> dict[str, str]:
    """Return what the trigger of a kind does for words, by its places there; nothing before there is a table for them."""
    if not made:
        return {"forget_every": "", "forget": "", "keep": ""}
    kind, key = embeddable.kind, embeddable.key
    forget = f"DELETE FROM {schema}.row_words WHERE kind = {kind}"
    keep = KEEP_ROW_WORDS.format(schema=schema, kind=kind, key=key, dataset=embeddable.dataset)
    return {"forget_every": f"{forget};", "forget": f"{forget} AND row_id = OLD.{key};", "keep": keep.strip()}
