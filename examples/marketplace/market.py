"""The pretended API of a marketplace: what it holds of two sellers, and what happens on a day; from one seed, no database."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from random import Random
from typing import Any, NamedTuple

from examples.marketplace.goods import CITIES, GOODS, NOTES, WAREHOUSES
from examples.marketplace.words import ANSWERS, AUTHORS, HAPPY, LANGUAGES, TOLD_TODAY, UNHAPPY

Row = dict[str, Any]

TABLES = ("products", "orders", "stocks", "reviews", "sales")
"""In the order in which the API delivers them."""

ORDERS, REVIEWS = 700, 550
DAYS = 120
"""So old is the oldest order."""
SALES_DAYS = 30
PAGE = 25

NEXT = {"paid": "packed", "packed": "shipped", "shipped": "delivered"}
"""What becomes of an order; a delivered one stays as it is."""


class MarketDownError(Exception):
    """The marketplace answered no more in the middle of a day's changes."""


class Page(NamedTuple):
    """What one request answers: rows of one table, new ones and changed ones alike."""

    table: str
    rows: list[Row]


class Market:
    """A marketplace that knows two sellers. Equal seeds tell equal stories; dates count back from `now`.

    `breaks_at` is the table at which it goes away while a day's changes are asked for; None for a good day.
    """

    def __init__(self, now: datetime | None = None, *, seed: int = 7, breaks_at: str | None = None) -> None:
        self._now = now or datetime.now(UTC)
        self._seed = seed
        self._breaks_at = breaks_at

    @cached_property
    def opening(self) -> dict[str, list[Row]]:
        """Everything there is before the first day, by table."""
        random = Random(self._seed)
        products = list(_products(random))
        orders = [self._order(random, n, random.choice(products)) for n in range(1, ORDERS + 1)]
        reviews = [_review(random, n, random.choice(products)) for n in range(1, REVIEWS + 1)]
        stocks = list(_stocks(random, products))
        sales = list(_sales(orders, since=self._now - timedelta(days=SALES_DAYS)))
        return dict(zip(TABLES, (products, orders, stocks, reviews, sales), strict=True))

    async def changes(self, day: int) -> AsyncIterator[Page]:
        """Yield the changes of a day, page by page; none on day 0.

        Raises `MarketDownError` on a bad day.
        """
        for table, rows in self._events(day).items():
            if table == self._breaks_at:
                raise MarketDownError(f"the marketplace answered 503 to GET /{table}?day={day}")
            for start in range(0, len(rows), PAGE):
                yield Page(table, rows[start : start + PAGE])

    def withdrawn(self) -> dict[str, list[int]]:
        """Return the ids that the sellers delete later, by table: one product and five orders of each seller."""
        gone: dict[str, list[int]] = {"products": [], "orders": []}
        recent = self._now - timedelta(days=DAYS // 2)
        for seller in GOODS:
            gone["products"].append([row["id"] for row in self._of("products", seller)][-1])
            gone["orders"] += [row["id"] for row in self._of("orders", seller) if row["placed_at"] > recent][:5]
        return gone

    def _of(self, table: str, seller: str) -> list[Row]:
        return [row for row in self.opening[table] if row["seller_id"] == seller]

    def _events(self, day: int) -> dict[str, list[Row]]:
        """About a tenth of all records."""
        if day == 0:
            return {}
        random, opening = Random(f"{self._seed} {day}"), self.opening
        placed = [
            {**self._order(random, ORDERS + 100 * day + n, random.choice(opening["products"])), "placed_at": self._now}
            | {"status": "paid"}
            for n in range(12)
        ]
        return {
            "products": [_repriced(random, row) for row in random.sample(opening["products"], 5)],
            "orders": [_moved_on(row) for row in random.sample(_open(opening["orders"]), 50)] + placed,
            "stocks": [_restocked(random, row) for row in random.sample(opening["stocks"], 40)],
            "reviews": [*self._said_today(random, day), *self._answered(random)],
            "sales": [row | {"id": 10_000 * day + row["id"]} for row in _sales(placed)],
        }

    def _order(self, random: Random, n: int, product: Row) -> Row:
        # never within two hours of a full number of days: none grows too old for the filter while somebody looks
        age = timedelta(days=random.randrange(1, DAYS), minutes=random.randrange(120, 22 * 60))
        pieces = random.choice((1, 1, 1, 1, 2, 2, 3))
        return {
            "id": n,
            "seller_id": product["seller_id"],
            "number": f"{product['seller_id'][0].upper()}-{20_000 + n}",
            "placed_at": self._now - age,
            "product": product["name"],
            "pieces": pieces,
            "amount": pieces * product["price"],
            "city": random.choice(CITIES),
            "status": _status(random, age),
            "note": random.choice(NOTES) if random.random() < 0.3 else None,
        }

    def _said_today(self, random: Random, day: int) -> Iterator[Row]:
        first = REVIEWS + 100 * day
        for n in range(8):
            yield _review(random, first + n, random.choice(self.opening["products"]))
        for n, (seller, (product, body)) in enumerate(TOLD_TODAY.items(), 8):
            row = {"id": first + n, "seller_id": seller, "product": product, "author": random.choice(AUTHORS)}
            yield row | {"stars": 1, "body": body, "answer": None}

    def _answered(self, random: Random) -> Iterator[Row]:
        unanswered = [row for row in self.opening["reviews"] if row["answer"] is None]
        for row in random.sample(unanswered, 14):
            yield row | {"answer": random.choice(ANSWERS)}


def _products(random: Random) -> Iterator[Row]:
    n = 0
    for seller, lines in GOODS.items():
        for line in lines:
            for model in line.models:
                n += 1
                yield {
                    "id": n,
                    "seller_id": seller,
                    "name": f"{model} {line.noun}",
                    "category": line.category,
                    "description": " ".join(random.sample(line.features, 3)),
                    "price": Decimal(line.cheapest + 5 * random.randrange(20)) - Decimal("0.10"),
                }


def _stocks(random: Random, products: list[Row]) -> Iterator[Row]:
    n = 0
    for product in products:
        for warehouse in WAREHOUSES[product["seller_id"]]:
            n += 1
            row = {"id": n, "seller_id": product["seller_id"], "product_id": product["id"], "product": product["name"]}
            yield row | {"warehouse": warehouse, "pieces": random.randrange(400)}


def _sales(orders: list[Row], since: datetime | None = None) -> Iterator[Row]:
    """Return what was ordered, by day and product."""
    sold: dict[tuple[Any, ...], tuple[int, Decimal]] = {}
    for order in orders:
        if since is None or order["placed_at"] >= since:
            key = (order["seller_id"], order["placed_at"].date(), order["product"])
            pieces, revenue = sold.get(key, (0, Decimal(0)))
            sold[key] = pieces + order["pieces"], revenue + order["amount"]
    for n, ((seller, day, product), (pieces, revenue)) in enumerate(sorted(sold.items()), 1):
        yield {"id": n, "seller_id": seller, "day": day, "product": product, "pieces": pieces, "revenue": revenue}


def _review(random: Random, n: int, product: Row) -> Row:
    stars = random.choices((1, 2, 3, 4, 5), (10, 8, 12, 25, 45))[0]
    language = random.choice(LANGUAGES[product["seller_id"]])
    beginnings, middles, endings = (HAPPY if stars > 2 else UNHAPPY)[language]
    parts = [random.choice(beginnings), *random.sample(middles, random.choice((1, 2, 2))), random.choice(endings)]
    return {
        "id": n,
        "seller_id": product["seller_id"],
        "product": product["name"],
        "author": random.choice(AUTHORS),
        "stars": stars,
        "body": " ".join(parts),
        "answer": random.choice(ANSWERS) if random.random() < 0.15 else None,
    }


def _status(random: Random, age: timedelta) -> str:
    if age > timedelta(days=20):
        return random.choices(("delivered", "returned", "cancelled"), (90, 7, 3))[0]
    return random.choice(tuple(NEXT))


def _open(orders: list[Row]) -> list[Row]:
    return [row for row in orders if row["status"] in NEXT]


def _moved_on(order: Row) -> Row:
    return order | {"status": NEXT[order["status"]]}


def _repriced(random: Random, product: Row) -> Row:
    return product | {"price": product["price"] - random.randrange(1, 9)}


def _restocked(random: Random, stock: Row) -> Row:
    return stock | {"pieces": stock["pieces"] + random.randrange(1, 60)}
