"""The foreign schema of the tour: five tables, each of a kind that is easily forgotten."""

from dataclasses import dataclass

WORDS = "'row ' || n || ' of ' || md5(n::text || clock_timestamp()::text)"


@dataclass(frozen=True)
class TourTable:
    """A table of the tour: how it is made, what its columns are for row `n`, its key, and the text it is attached with."""

    name: str
    ddl: str
    columns: str
    values: str
    key: str
    text: str
    edited: str
    """The assignment that gives a row another text; `n` is a number."""
    dataset_column: str | None = None

    @property
    def relation(self) -> str:
        """Return its name with its schema."""
        return f"tour.{self.name}"

    @property
    def key_json(self) -> str:
        """Return SQL for the key of a row, as its document has it."""
        return f"jsonb_build_array({self.key})::text"

    def insert(self) -> str:
        """Return the statement that makes the rows with the numbers `$1` to `$2`."""
        return (
            f"INSERT INTO {self.relation} ({self.columns}) SELECT {self.values} "
            f"FROM generate_series($1::bigint, $2::bigint) n RETURNING {self.key_json}"
        )

    def edit(self) -> str:
        """Return the statement that gives the row with the key `$1` another text."""
        return (
            f"UPDATE {self.relation} SET {self.edited} FROM (SELECT $2::bigint AS n) s WHERE {self._chosen} "
            f"RETURNING {self.key_json}"
        )

    def touch(self) -> str:
        """Return the statement that changes a column that no text reads, in the row with the key `$1`."""
        return f"UPDATE {self.relation} SET seen = seen + 1 WHERE {self._chosen}"

    def delete(self) -> str:
        """Return the statement that deletes the row with the key `$1`."""
        return f"DELETE FROM {self.relation} WHERE {self._chosen}"

    @property
    def _chosen(self) -> str:
        parts = [part.strip() for part in self.key.split(",")]
        return " AND ".join(f"{part}::text = $1::jsonb ->> {place}" for place, part in enumerate(parts))


TABLES = (
    TourTable(
        "lines",
        "CREATE TABLE tour.lines (part int, number bigint, note text, seen int DEFAULT 0, PRIMARY KEY (part, number))",
        "part, number, note",
        f"n % 5, n, {WORDS}",
        "part, number",
        "note",
        f"note = {WORDS}",
    ),
    TourTable(
        "people",
        'CREATE TABLE tour.people (id uuid PRIMARY KEY, "full name" text, about text, seen int DEFAULT 0)',
        'id, "full name", about',
        f"gen_random_uuid(), 'person ' || n, {WORDS}",
        "id",
        "\"full name\" || E'\\n\\n' || about",
        f"about = {WORDS}",
    ),
    TourTable(
        "events",
        "CREATE TABLE tour.events (id bigint, day date, what text, seen int DEFAULT 0, PRIMARY KEY (id, day)) "
        "PARTITION BY RANGE (day); "
        "CREATE TABLE tour.events_old PARTITION OF tour.events FOR VALUES FROM (MINVALUE) TO ('2026-01-01'); "
        "CREATE TABLE tour.events_new PARTITION OF tour.events FOR VALUES FROM ('2026-01-01') TO (MAXVALUE)",
        "id, day, what",
        f"n, '2025-12-01'::date + (n % 60)::int, {WORDS}",
        "id, day",
        "what",
        f"what = {WORDS}",
    ),
    TourTable(
        "notes",
        "CREATE TABLE tour.notes (id bigint PRIMARY KEY, doc jsonb, seen int DEFAULT 0)",
        "id, doc",
        f"n, jsonb_build_object('title', 'note ' || n, 'body', jsonb_build_object('text', {WORDS}))",
        "id",
        "(doc ->> 'title') || E'\\n' || (doc #>> '{body,text}')",
        f"doc = jsonb_set(doc, '{{body,text}}', to_jsonb({WORDS}))",
    ),
    TourTable(
        "tickets",
        "CREATE TABLE tour.tickets (id text PRIMARY KEY, tenant text, body text, seen int DEFAULT 0); "
        "ALTER TABLE tour.tickets ENABLE ROW LEVEL SECURITY; "
        "CREATE POLICY own ON tour.tickets USING (tenant = current_setting('app.tenant', true))",
        "id, tenant, body",
        f"'T/' || n, 'tenant ' || n % 3, {WORDS}",
        "id",
        "body",
        f"body = {WORDS}",
        dataset_column="tenant",
    ),
)
