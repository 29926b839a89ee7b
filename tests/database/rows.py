"""Rows of every embeddable kind, written by plain SQL that names everything in full and relies on no search_path."""

from dataclasses import dataclass
from hashlib import sha256

from evervec.store.schema.embeddables import ATOM, CHUNK, EMBEDDABLES, MESSAGE, TOPIC, Embeddable
from tests.database.places import EMBEDDINGS, SCHEMA, TOMBSTONES
from tests.database.programs import Psql

DATASET, ELSEWHERE = "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"


@dataclass(frozen=True)
class Kind:
    """How another program writes rows of one kind: the columns it fills, and a column that has nothing to do with the text."""

    columns: str
    values: str
    other: str


KINDS = {
    MESSAGE: Kind("chat, external_id, author, content", "'chat', '{id}', 'dev', '{text}'", "author = 'another'"),
    TOPIC: Kind("name", "'{text}'", "updated_at = pg_catalog.now()"),
    ATOM: Kind("type, title, confidence, content", "'insight', 'title', 0.5, '{text}'", "title = 'another'"),
    CHUNK: Kind("document_id, ordinal, content, vector_text", "1, {id}, 'part', '{text}'", "content = 'another'"),
}


def furnish(psql: Psql, schema: str = SCHEMA) -> None:
    """Make two datasets, and a document that the chunks belong to."""
    psql(
        f"INSERT INTO {schema}.projects (id, slug, name) VALUES ('{DATASET}', 'river', 'river')",
        f"INSERT INTO {schema}.datasets (id, project_id, slug, name) VALUES ('{DATASET}', '{DATASET}', 'log', 'log'), "
        f"('{ELSEWHERE}', '{DATASET}', 'elsewhere', 'elsewhere')",
        f"INSERT INTO {schema}.documents (id, dataset_id, uri) VALUES (1, '{DATASET}', 'file:///a')",
    )


def insert(embeddable: Embeddable, texts: dict[int, str], schema: str = SCHEMA) -> str:
    """Return the statement that inserts rows by id."""
    kind = KINDS[embeddable]
    values = ", ".join(f"({key}, '{DATASET}', {kind.values.format(id=key, text=text)})" for key, text in texts.items())
    return f"INSERT INTO {schema}.{embeddable.table} (id, dataset_id, {kind.columns}) VALUES {values}"


def copy(embeddable: Embeddable, texts: dict[int, str]) -> str:
    """Return the same rows as a COPY, for psql."""
    kind = KINDS[embeddable]
    lines = "".join(
        f"{key}\t{DATASET}\t{_plain(kind.values.format(id=key, text=text))}\n" for key, text in texts.items()
    )
    return f"COPY {SCHEMA}.{embeddable.table} (id, dataset_id, {kind.columns}) FROM STDIN;\n{lines}\\.\n"


def upsert(embeddable: Embeddable, texts: dict[int, str]) -> str:
    """Return the statement that inserts rows or gives them another text."""
    column = embeddable.columns[0]
    return f"{insert(embeddable, texts)} ON CONFLICT (id) DO UPDATE SET {column} = EXCLUDED.{column}"


def edit(embeddable: Embeddable, key: int, text: str) -> str:
    """Return the statement that changes one row's text."""
    return f"UPDATE {SCHEMA}.{embeddable.table} SET {embeddable.columns[0]} = '{text}' WHERE id = {key}"


def embed_all(psql: Psql, schema: str = SCHEMA) -> None:
    """Give every pending row the same vector, of the active space's width if there is one."""
    found = psql(f"SELECT dimensions, id FROM {schema}.embedding_spaces WHERE state = 'active'")
    width, space = (int(found[0][0]), found[0][1]) if found else (3, "1")
    vector = ",".join(["0.5"] * width)
    psql(
        # in older versions a record without a vector is in no space
        f"UPDATE {schema}.embeddings SET embedding = '[{vector}]', space_id = coalesce(space_id, {space}), embedded_hash = content_hash, embedded_at = now() "
        "WHERE content_hash IS NOT NULL AND embedded_hash IS DISTINCT FROM content_hash"
    )


def digest(text: str) -> str:
    """Return the content hash of a text, as PostgreSQL prints it in hex."""
    return sha256(text.encode()).hexdigest()


def recorded(psql: Psql, embeddable: Embeddable, schema: str = SCHEMA) -> dict[int, str]:
    """Return the content hash of every record of a kind, by the row's id."""
    rows = psql(
        f"SELECT row_id, encode(content_hash, 'hex') FROM {schema}.embeddings WHERE kind = {embeddable.kind} ORDER BY row_id"
    )
    return {int(key): found for key, found in rows}


def digests(texts: dict[int, str]) -> dict[int, str]:
    """Return what `recorded` must be for these rows."""
    return {key: digest(text) for key, text in texts.items()}


def vector_ids(psql: Psql) -> list[int]:
    """Return the ids of all vectors."""
    return [int(one) for (one,) in psql(f"SELECT vector_id FROM {EMBEDDINGS} WHERE embedding IS NOT NULL ORDER BY 1")]


def tombstones(psql: Psql) -> list[int]:
    """Return the ids of the vectors that are gone."""
    return [int(one) for (one,) in psql(f"SELECT vector_id FROM {TOMBSTONES} ORDER BY 1")]


def untracked(psql: Psql, schema: str = SCHEMA) -> int:
    """Count the rows that have no record, or one of another text; an oracle of its own, not the product's."""
    return sum(psql.number(_UNTRACKED.format(schema=schema, table=one.table, kind=one.kind,
                                             text=one.text)) for one in EMBEDDABLES)  # fmt: skip


_UNTRACKED = """
SELECT count(*) FROM {schema}.{table} r FULL JOIN (SELECT * FROM {schema}.embeddings WHERE kind = {kind}) e ON e.row_id = r.id
WHERE r.id IS NULL OR e.row_id IS NULL OR e.dataset_id <> r.dataset_id
   OR e.content_hash IS DISTINCT FROM CASE WHEN trim({text}) <> '' THEN sha256(convert_to({text}, 'UTF8')) END
"""


def _plain(values: str) -> str:
    return "\t".join(value.strip("'") for value in values.split(", "))
