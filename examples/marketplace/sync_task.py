"""A task as a team writes it in its own project: pull what the marketplace changed, then let Evervec index just that."""

import os
from pathlib import Path
from typing import Annotated, Any

from taskiq import Context, TaskiqDepends, async_shared_broker

from evervec.pipeline.ingest import sql
from evervec.pipeline.resources import Resources
from evervec.sources.sql import loading
from evervec.worker.tasks import OPEN_RESOURCES
from examples.marketplace import shop
from examples.marketplace.market import Market

DESCRIPTION = Path(__file__).with_name("marketplace.yaml")


def opened_market(context: Annotated[Context, TaskiqDepends()]) -> Market:
    """Return the client of the marketplace that this worker was started with."""
    market: Market = context.state.market
    return market


MARKET: Market = TaskiqDepends(opened_market)


@async_shared_broker.task(task_name="sync_marketplace_task")
async def sync_marketplace_task(
    day: int, full_rebuild: bool = False, resources: Resources = OPEN_RESOURCES, market: Market = MARKET
) -> dict[str, Any]:
    """Bring the shop's tables up to date; return what changed, by table and by dataset, and the runs that index it.

    Where the marketplace breaks off, `MarketDownError` leaves this task before anything is triggered: the next sync
    finds what was pulled until then as well.
    """
    async for page in market.changes(day):
        async with resources.database.transaction() as tx:
            await shop.take(tx, page.table, page.rows)
    description = loading.load(DESCRIPTION, os.environ)
    synced = await sql.sync(resources, description, full=full_rebuild)
    return {
        "changed_ids": synced.changed_ids,
        "datasets": {one.dataset: {"run": str(one.run_id), "changed_ids": one.changed_ids} for one in synced.datasets},
        "warnings": synced.warnings,
    }
