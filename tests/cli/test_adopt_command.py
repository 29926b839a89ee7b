"""`evervec adopt`, as an operator types it, with the local model."""

import asyncio

from evervec.domain.vendors import LOCAL
from tests.cli.command import Command
from tests.cli.own_vectors import reviews
from tests.conftest import _sql

ADOPT = ("adopt", "public.reviews", "--column", "embedding", "--model", LOCAL.model)
ATTACH = ("--text", "body", "--project", "app", "--dataset", "reviews")


def test_vectors_are_adopted_and_the_distribution_is_shown(evervec: Command, database_url: str) -> None:
    asyncio.run(_sql(database_url, asyncio.run(reviews())))
    evervec(*ADOPT).refused("No table 'public.reviews' is attached", "--text SQL")
    planned = evervec(*ADOPT, *ATTACH, "--dry-run")
    assert planned.code == 0, planned
    assert "cosines: min 1.0000, p5 1.0000, median 1.0000, max 1.0000" in planned.out
    assert evervec("attachments", "--json").document() == {"attachments": []}
    done = evervec(*ADOPT, *ATTACH, "--json").document()
    assert (done["vectors"], done["sample"]["compared"], done["adoption"]["adopted"]) == (3, 3, 3)
    assert set(done["sample"]["cosine"]) == {"min", "p5", "median", "max"}
    assert evervec("status", "--json").document()["embedded"] == 3
    again = evervec(*ADOPT)
    assert (again.code, "3 rows had one of ours before" in again.out) == (0, True)
    evervec(*ADOPT, *ATTACH).refused("is attached already")
    asyncio.run(_sql(database_url, "UPDATE public.reviews SET body = 'Another text ' || id"))
    evervec(*ADOPT).refused("are not those that", "p5 has to be 0.99")
