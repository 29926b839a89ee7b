"""Random rows of every kind, conditions of which some fit them, and what a plain walk over the rows says of both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson

from evervec.domain.conditions.reading import leaves
from evervec.domain.conditions.tree import AllOf, AnyOf, Comparison, Condition, Missing, Not, OneOf, StartsWith
from evervec.store.conditions import fields
from evervec.store.datasets import DatasetRef
from evervec.store.schema.embeddables import ATOM, BY_KIND, CHUNK, MESSAGE, TOPIC

START = datetime(2026, 1, 1, tzinfo=UTC)
PLAIN = {
    MESSAGE: "SELECT id, chat, external_id, author, reply_to, signal, sent_at, edited_at, score FROM messages r",
    TOPIC: "SELECT id, name, description, created_at, updated_at FROM topics r",
    ATOM: "SELECT r.id, r.type, r.title, t.name AS topic, r.confidence::text::float8 AS confidence, r.version, r.created_at, "
    "r.updated_at FROM atoms r LEFT JOIN topics t ON t.id = r.topic_id",
    CHUNK: "SELECT r.id, r.heading, r.document_id, r.line_start, d.uri, d.title, d.format, d.created_at, d.updated_at, d.fields, "
    "d.metadata FROM chunks r JOIN documents d ON d.id = r.document_id",
}
JSON_FIELDS = {"fields", "metadata"}
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


@dataclass(frozen=True)
class PlainRow:
    """A row as SQL without us reads it."""

    kind: int
    id: int
    values: dict[str, Any]

    def value(self, name: str) -> Any:
        first, *path = name.split(".")
        found = self.values.get(first)
        for step in path:
            found = found.get(step) if isinstance(found, dict) else None
        return found

    def fulfils(self, one: Condition) -> bool:
        match one:
            case AllOf():
                return all(self.fulfils(part) for part in one.of)
            case AnyOf():
                return any(self.fulfils(part) for part in one.of)
            case Not():
                return not self.fulfils(one.of)
            case Missing():
                return one.field.split(".")[0] in self.values and self.value(one.field) is None
            case StartsWith():
                found = self.value(one.field)
                return isinstance(found, str) and found.startswith(one.value)
            case OneOf():
                return any(_equal(self.value(one.field), value) for value in one.values)
            case Comparison(op="eq"):
                return _equal(self.value(one.field), one.value)
            case Comparison(op="ne"):
                found = self.value(one.field)
                is_json = "." in one.field
                return (found is not None or (is_json and self.has_json(one.field))) and not _equal(found, one.value)
            case Comparison():
                found = self.value(one.field)
                return found is not None and _comparable(found, one.value) and ORDERS[one.op](found, one.value)

    def has_json(self, name: str) -> bool:
        """Return whether JSON has the key, be it with null."""
        first, *path = name.split(".")
        found = self.values.get(first)
        for step in path:
            if not isinstance(found, dict) or step not in found:
                return False
            found = found[step]
        return True


def _equal(found: Any, value: Any) -> bool:
    if isinstance(found, list):
        return any(_equal(one, value) for one in found)
    return _comparable(found, value) and bool(found == value)


def _comparable(found: Any, value: Any) -> bool:
    numbers = [isinstance(one, int | float) and not isinstance(one, bool) for one in (found, value)]
    return all(numbers) or type(found) is type(value)


async def plain_rows(psql: Any) -> list[PlainRow]:
    rows: list[PlainRow] = []
    for kind, sql in PLAIN.items():
        for row in await psql.fetch(sql):
            values = dict(row)
            for name in JSON_FIELDS & values.keys():
                values[name] = None if values[name] is None else orjson.loads(values[name])
            if values.get("score") is not None:
                values["score"] = float(str(np.float32(values["score"])))
            rows.append(PlainRow(kind.kind, row["id"], values))
    return rows


class Chance:
    """Random rows, and conditions of which some fit them."""

    def __init__(self, seed: int) -> None:
        self.numbers = np.random.default_rng(seed)

    def one(self, of: Sequence[Any]) -> Any:
        return of[int(self.numbers.integers(0, len(of)))]

    async def plant(self, psql: Any, dataset: DatasetRef, number: int) -> None:
        at = START + timedelta(hours=number)
        score = self.one([None, 0.1, 0.5, 0.9])
        await psql.execute(
            "INSERT INTO messages (dataset_id, chat, external_id, author, content, sent_at, edited_at, reply_to, score, signal, "
            "score_factors, scored_revision) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            dataset.id,
            self.one(["river", "Sea", "ärger"]),
            str(number),
            self.one(["ada", "Bob", "it's", 'a "b"']),
            f"message {number}",
            at,
            self.one([None, at + timedelta(minutes=1)]),
            self.one([None, "1"]),
            score,
            None if score is None else self.one(["noise", "weak_signal", "signal"]),
            None if score is None else "{}",
            None if score is None else 1,
        )
        topic = await psql.fetchval(
            "INSERT INTO topics (dataset_id, name, description, created_at) VALUES ($1, $2, $3, $4) RETURNING id",
            dataset.id,
            f"topic {number}",
            self.one(["", "long"]),
            at,
        )
        await psql.execute(
            "INSERT INTO atoms (dataset_id, topic_id, type, title, content, confidence) VALUES ($1, $2, $3, 't', $4, $5)",
            dataset.id,
            self.one([None, topic]),
            self.one(["insight", "decision"]),
            f"atom {number}",
            self.one([0.1, 0.5, 0.9]),
        )
        found = self.one(
            [None, {"price": number}, {"price": 1.5, "tags": ["a", "b"], "deep": {"x": None}}, {"price": "9"}]
        )
        document = await psql.fetchval(
            "INSERT INTO documents (dataset_id, uri, title, format, fields, metadata) "
            "VALUES ($1, $2, $3, 'markdown', $4::jsonb, coalesce($4::jsonb, '{}')) RETURNING id",
            dataset.id,
            f"docs/{self.one(['a', 'b'])}/{number}.md",
            self.one(["", "Guide"]),
            None if found is None else orjson.dumps(found).decode(),
        )
        await psql.execute(
            "INSERT INTO chunks (dataset_id, document_id, ordinal, content, vector_text, heading, line_start, line_end) "
            "VALUES ($1, $2, 0, 'c', $3, $4, $5, $5)",
            dataset.id,
            document,
            f"chunk {number}",
            self.one(["", "Install"]),
            self.one([None, 1, 7]),
        )

    def leaf(self, rows: Sequence[PlainRow]) -> Condition:
        row = self.one(rows)
        names = [name for name in row.values if name not in JSON_FIELDS]
        inside = [
            f"{name}.{path}" for name in sorted(JSON_FIELDS & row.values.keys()) for path in ("price", "tags", "deep.x")
        ]
        name = self.one([*names, *inside])
        value = row.value(name)
        if value is None or isinstance(value, list):
            value = self.one(["a", 1]) if name in inside else None
        if value is None or self.numbers.random() < 0.1:
            return Missing(field=name)
        if isinstance(value, str) and self.numbers.random() < 0.3:
            return StartsWith(field=name, value=value[:2])
        if self.numbers.random() < 0.3:
            return OneOf(field=name, values=(value, value) if self.numbers.random() < 0.8 else ())
        return Comparison.model_validate(
            {"op": self.one(["eq", "ne", "lt", "le", "gt", "ge"]), "field": name, "value": value}
        )

    def tree(self, rows: Sequence[PlainRow], depth: int = 3) -> Condition:
        dice = self.numbers.random()
        if depth == 0 or dice < 0.4:
            return self.leaf(rows)
        if dice < 0.6:
            return Not(of=self.tree(rows, depth - 1))
        parts = tuple(self.tree(rows, depth - 1) for _ in range(int(self.numbers.integers(0, 4))))
        return AllOf(of=parts) if dice < 0.8 else AnyOf(of=parts)


def searched(condition: Condition, row: PlainRow) -> bool:
    """Return whether a row is of a kind that has a field of the condition, or the condition has none."""
    names = [leaf.field for leaf in leaves(condition)]
    return not names or any(fields.find(BY_KIND[row.kind], name) is not None for name in names)
