"""Show evidence from PostgreSQL: which index answers a search, and that no row with text lacks a vector."""

import re
from dataclasses import dataclass

from evervec.pipeline.resources import Resources
from evervec.pipeline.search.search import plan
from evervec.store import monitor
from evervec.store.database.session import Database


@dataclass(frozen=True)
class Explanation:
    """One claim, whether it holds, and the evidence."""

    claim: str
    holds: bool
    seen: str


async def explain_index(resources: Resources, text: str, kind: str) -> Explanation:
    """Check that PostgreSQL's plan of a search uses the HNSW index."""
    explained = await plan(resources, text, kind)
    found = re.search(r"Index Scan using embeddings_hnsw_\w+ on embeddings", explained)
    return Explanation(
        f"the HNSW index answers a search for {kind}s", found is not None, found[0] if found else explained
    )


async def explain_coverage(database: Database) -> Explanation:
    """Check that every row with text has a vector."""
    async with database.read() as tx:
        with_text, missing = await monitor.count_without_vector(tx)
    return Explanation("nothing is NULL", missing == 0, f"{missing} of {with_text:,} rows with text have no vector")
