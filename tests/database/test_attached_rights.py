"""Who attaches a table needs rights on it: what is missing is named with the statement that grants it, and that suffices."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from evervec.domain.attachment import AttachedTable
from evervec.errors import EvervecError, SourceError
from evervec.store.attached import rows
from evervec.store.database.session import Database, ReadTx
from tests.database.conftest import MakeRole
from tests.database.places import SCHEMA
from tests.database.programs import Psql, as_role
from tests.store.attaching import attach

TABLE = """
CREATE SCHEMA app; CREATE TABLE app.notes (id int PRIMARY KEY, title text, writer text DEFAULT current_user);
ALTER TABLE app.notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON app.notes USING (writer = current_user);
INSERT INTO app.notes VALUES (1, 'one', 'mara'), (2, 'two', 'jo')
"""


def test_what_is_missing_to_attach_is_named_and_suffices(sql: Psql, role: MakeRole) -> None:
    owner, name = role("NOLOGIN"), role("LOGIN")
    sql.script(TABLE)
    sql.script(f"ALTER TABLE app.notes OWNER TO {owner}; ALTER TABLE app.notes FORCE ROW LEVEL SECURITY")
    sql.script(f"GRANT ALL ON ALL TABLES IN SCHEMA {SCHEMA} TO {name}; GRANT USAGE ON SCHEMA {SCHEMA} TO {name}")
    asked = []
    for _ in range(8):
        try:
            table = asyncio.run(_attach(as_role(sql.url, name)))
            break
        except EvervecError as error:
            statements = re.findall(r"(?:GRANT|ALTER ROLE) [^;]+;", str(error))
            assert statements, error
            asked += statements
            sql.script(" ".join(statements))
    else:
        raise AssertionError(asked)
    said = " ".join(asked).replace('"', "")
    for needed in (
        f"GRANT USAGE ON SCHEMA app TO {name};",
        f"GRANT SELECT ON app.notes TO {name};",
        f"GRANT {owner} TO {name};",
        f"ALTER ROLE {name} BYPASSRLS;",
        f"GRANT CREATE ON SCHEMA {SCHEMA} TO {name};",
    ):
        assert needed in said
    sql.script(f"ALTER ROLE {name} NOBYPASSRLS")
    asyncio.run(_require_refusal(as_role(sql.url, name), table))


async def _attach(url: str) -> AttachedTable:
    database = await Database(url, pool_size=2).open()
    try:
        found = await attach(database, "app.notes")
        assert set(await found.read((1,), (2,))) == {(1,), (2,)}
        return found.table
    finally:
        await database.aclose()


async def _require_refusal(url: str, table: AttachedTable) -> None:
    """Require that rows which a policy hides by now are not taken for deleted ones."""
    database = await Database(url, pool_size=2).open()
    try:
        reads: list[Callable[[ReadTx], Awaitable[object]]] = [
            lambda tx: rows.read(tx, table, [(1,)], most_bytes=100, together_bytes=100),
            lambda tx: rows.existing(tx, table, [(1,)]),
            lambda tx: rows.keys_after(tx, table, None, 10),
        ]
        for read in reads:
            with pytest.raises(SourceError, match="row-level security policy for table"):
                async with database.read() as tx:
                    await read(tx)
    finally:
        await database.aclose()
