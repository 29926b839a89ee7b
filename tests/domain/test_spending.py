"""What is shared out among datasets sums up to the whole; what an answer says about its tokens reaches who asked."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from evervec.domain import usage
from evervec.domain.spending import Spent, cost, shared_out


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_the_parts_sum_up_to_the_whole(total: int, weights: list[int]) -> None:
    parts = shared_out(total, weights)
    assert (len(parts), sum(parts)) == (len(weights), total)
    assert all(part >= 0 for part in parts)


def test_parts_follow_the_weights() -> None:
    assert shared_out(100, [1, 3]) == [25, 75]
    assert shared_out(10, [0, 0]) == [5, 5]


def test_counts_add_up() -> None:
    total = Spent(requests=1, tokens=5, usd=0.5)
    total.add(Spent(requests=2, seconds=1.5, reused=3))
    assert total == Spent(requests=3, tokens=5, usd=0.5, seconds=1.5, reused=3)


def test_no_price_is_no_cost() -> None:
    assert cost(10, None) is None
    assert cost(2_000_000, 0.15) == 0.3


async def test_each_task_is_told_of_its_own_call() -> None:
    async def call(tokens: int) -> int | None:
        with usage.measured() as used:
            await asyncio.sleep(0)
            usage.tell(tokens)
            await asyncio.sleep(0)
            return used.tokens

    assert await asyncio.gather(*(call(tokens) for tokens in range(10))) == list(range(10))


def test_what_is_no_count_is_not_counted() -> None:
    with usage.measured() as used:
        for said in (None, "12", True, -1, 1.5, {}):
            usage.tell(said, said)
    assert used == usage.Usage(answers=6)
