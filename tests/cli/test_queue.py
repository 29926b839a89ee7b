"""`evervec queue dead`: the tasks that could not be run are listed, sent back or dropped, over a real NATS."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from evervec.queue import dead_letters
from evervec.queue.broker import JetStreamBroker
from evervec.queue.depth import depth
from evervec.queue.jetstream import headers
from evervec.queue.names import Lane
from tests.cli.command import Command

T = TypeVar("T")


def over_nats(evervec: Command, function: Callable[[JetStreamBroker], Awaitable[T]]) -> T:
    """Call a function with a broker of the command's stream."""

    async def run() -> T:
        broker = JetStreamBroker(evervec.environment["EVERVEC_NATS_URL"], stream=evervec.environment["EVERVEC_STREAM"])
        await broker.startup()
        try:
            return await function(broker)
        finally:
            await broker.shutdown()

    return asyncio.run(run())


def plant(evervec: Command, count: int) -> None:
    """Store so many dead letters, of the tasks `t0`, `t1`, …"""

    async def store(broker: JetStreamBroker) -> None:
        for number in range(count):
            found = {headers.SUBJECT: broker.layout.lane(Lane.BACKFILL), headers.DELIVERIES: "6"}
            body = f'{{"task_name": "t{number}"}}'.encode()
            await dead_letters.add_dead_letter(broker, number, f"t{number}", "unknown task", found, body)

    over_nats(evervec, store)


def waiting(evervec: Command) -> int:
    """Return how many tasks wait in the backfill lane."""
    return over_nats(evervec, depth).lanes[Lane.BACKFILL]


def left(evervec: Command) -> list[int]:
    """Return the numbers of the dead letters that `list` shows."""
    return [letter["seq"] for letter in evervec("queue", "dead", "list", "--json").document()["dead_letters"]]


def test_dead_letters_are_listed_with_their_reason(evervec: Command) -> None:
    assert evervec("queue", "dead", "list").out.strip() == "There are no dead letters."
    assert evervec("queue", "dead", "list", "--json").document() == {"dead_letters": []}
    plant(evervec, 3)
    shown = evervec("queue", "dead", "list")
    assert shown.code == 0
    assert all(word in shown.out for word in ("t0", "t2", "unknown task", '{"task_name": "t1"}'))
    assert "evervec queue dead requeue" in shown.err
    first, *others = evervec("queue", "dead", "list", "--limit", 2, "--json").document()["dead_letters"]
    assert len(others) == 1
    assert first.keys() == {"seq", "task_name", "reason", "subject", "deliveries", "at", "body"}
    assert (first["task_name"], first["reason"], first["deliveries"]) == ("t0", "unknown task", 6)
    assert first["subject"].endswith(".task.backfill")
    assert "evervec queue dead list" in evervec("status").out


def test_one_is_sent_back_to_its_queue_and_taken_off_the_list(evervec: Command) -> None:
    plant(evervec, 3)
    one, two, three = left(evervec)
    done = evervec("queue", "dead", "requeue", two, two, "--json")
    assert (done.code, done.document()) == (0, {"requeued": [two]})
    assert left(evervec) == [one, three]
    assert waiting(evervec) == 1
    assert evervec("queue", "dead", "requeue", one, three).out.strip() == "2 requeued."
    assert (left(evervec), waiting(evervec)) == ([], 3)


def test_all_of_them_are_sent_back_or_dropped(evervec: Command) -> None:
    plant(evervec, 3)
    sent = left(evervec)
    assert evervec("queue", "dead", "requeue", "--all", "--json").document() == {"requeued": sent}
    assert (left(evervec), waiting(evervec)) == ([], 3)
    assert evervec("queue", "dead", "requeue", "--all").out.strip() == "0 requeued."


def test_what_is_dropped_is_gone_and_not_sent(evervec: Command) -> None:
    plant(evervec, 4)
    one, *others = left(evervec)
    assert evervec("queue", "dead", "drop", one, "--json").document() == {"dropped": [one]}
    assert left(evervec) == others
    assert evervec("queue", "dead", "drop", "--all").out.strip() == "3 dropped."
    assert (left(evervec), waiting(evervec)) == ([], 0)


def test_an_unknown_number_is_refused_before_anything_is_changed(evervec: Command) -> None:
    plant(evervec, 2)
    there = left(evervec)
    for verb in ("requeue", "drop"):
        evervec("queue", "dead", verb, there[0], 4711).refused(
            "There is no dead letter 4711.", "`evervec queue dead list` shows the ones that exist."
        )
    assert (left(evervec), waiting(evervec)) == (there, 0)


def test_wrong_usage_is_told(evervec: Command) -> None:
    for verb in ("requeue", "drop"):
        evervec("queue", "dead", verb).refused("Give the numbers of dead letters, or --all.")
        evervec("queue", "dead", verb, 1, "--all").refused("Give the numbers of dead letters, or --all.")
        evervec("queue", "dead", verb, 0).refused("SEQ")
        evervec("queue", "dead", verb, "first").refused("SEQ")
    evervec("queue", "dead", "list", "--limit", 0).refused("--limit")
    evervec("queue", "dead", "bury").refused("No such command 'bury'")


def test_without_nats_it_says_so(evervec: Command) -> None:
    for arguments in (("list",), ("requeue", 1), ("drop", "--all")):
        evervec("queue", "dead", *arguments, EVERVEC_NATS_URL="nats://127.0.0.1:1").refused(
            "NATS at nats://127.0.0.1:1 does not answer", code=1
        )
