"""What Evervec made in a database beside its tables, noted in the comment of its version table: to be removed with them."""

from dataclasses import asdict, dataclass

import orjson

from evervec.store.database.connections import quoted
from evervec.store.database.rights import VERSION_TABLE
from evervec.store.database.session import ReadTx

OPENING = "Evervec made: "

COMMENT = """
SELECT obj_description(c.oid, 'pg_class') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2
"""
# what an extension brings into the schema is not of anybody else either
VACANT = """
SELECT NOT EXISTS (
    SELECT FROM pg_depend d WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid AND d.deptype = 'n'
      AND d.classid <> 'pg_extension'::regclass AND d.classid <> 'pg_default_acl'::regclass
      AND NOT EXISTS (
          SELECT FROM pg_depend e WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e'
      )
) FROM pg_namespace n WHERE n.nspname = $1
"""


@dataclass(frozen=True)
class Ledger:
    """What was made: the schema, the extension, rights to use the schema; `alone`: nothing else was in the schema."""

    schema: bool = False
    alone: bool = False
    extension: bool = False
    usage: tuple[str, ...] = ()


async def read(tx: ReadTx, schema: str) -> Ledger:
    """Return what is noted in a database; an older version noted nothing."""
    comment = str(await tx.fetchval(COMMENT, schema, VERSION_TABLE) or "")
    if not comment.startswith(OPENING):
        return Ledger()
    noted = orjson.loads(comment.removeprefix(OPENING))
    return Ledger(noted["schema"], noted["alone"], noted["extension"], tuple(noted["usage"]))


async def is_vacant(tx: ReadTx, schema: str) -> bool:
    """Return whether a schema is for nobody else: missing, or with nothing in it but what belongs to an extension."""
    return schema != "public" and await tx.fetchval(VACANT, schema) is not False


def note(schema: str, made: Ledger) -> str:
    """Return the statement that notes what was made."""
    text = OPENING + orjson.dumps(asdict(made)).decode()
    return f"COMMENT ON TABLE {quoted(schema)}.{VERSION_TABLE} IS '{text.replace(chr(39), chr(39) * 2)}'"
