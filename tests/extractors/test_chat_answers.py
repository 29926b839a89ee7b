"""Every way in which a chat model's answer may not fit the messages, and what is taken from one that fits."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from evervec.domain.extraction.knowledge import AtomType, DatasetKnowledge, KnownAtom, KnownTopic, MessageText
from evervec.extractors.chat.answers import UnusableAnswerError, read_extraction, read_scores

SENT = [MessageText(number, "text", "ann", datetime(2026, 1, 1, tzinfo=UTC)) for number in (1, 2)]
KNOWN = DatasetKnowledge([KnownTopic(5, "Queues", "…")], [KnownAtom(9, AtomType.PROBLEM, "t", "c")])


def score(number: Any = 1, **changes: Any) -> dict[str, Any]:
    return {"id": number, "value": 0.5, "signal": "signal", "factors": []} | changes


def atom(**changes: Any) -> dict[str, Any]:
    whole = {"type": "idea", "title": "t", "content": "c", "confidence": 0.5, "message_ids": [1], "topic": "queues"}
    return whole | changes


def link(**changes: Any) -> dict[str, Any]:
    return {"source": 0, "type": "solves", "confidence": 0.5, "target": 1, "target_atom_id": None} | changes


def extraction(*, atoms: list[Any] | None = None, links: list[Any] | None = None, topics: Any = ()) -> str:
    return orjson.dumps({"topics": topics, "atoms": atoms or [atom(), atom()], "links": links or []}).decode()


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ([score(1)], r"no score for the ids \[2\]"),
        ([score(1), score(1), score(2)], "twice"),
        ([score(1), score(2), score(3)], r"no messages with the ids \[3\]"),
        ([score(1, value=1.5), score(2)], r"scores\.0\.value"),
        ([score(1, value="0.5"), score(2)], r"scores\.0\.value"),
        ([score("1"), score(2)], r"scores\.0\.id"),
        ([score(1, signal="loud"), score(2)], r"scores\.0\.signal"),
        ("none", "scores"),
    ],
)
def test_scores_that_do_not_fit_are_refused_by_name(scores: Any, reason: str) -> None:
    with pytest.raises(UnusableAnswerError, match=reason):
        read_scores(orjson.dumps({"scores": scores}).decode(), SENT)


def test_shares_are_scaled_to_the_value_and_a_score_without_factors_gets_one() -> None:
    factors = [{"name": "a", "share": 3}, {"name": "b", "share": 1}, {"name": "a", "share": 1}]
    first, second = read_scores(orjson.dumps({"scores": [score(2), score(1, factors=factors)]}).decode(), SENT)
    assert first.factors == pytest.approx({"a": 0.4, "b": 0.1})
    assert second.factors == {"model": 0.5}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (extraction(atoms=[atom(message_ids=[1, 77])]), r"no messages with the ids \[77\]"),
        (extraction(atoms=[atom(message_ids=[])]), "at least one message"),
        (extraction(atoms=[atom(topic="Nowhere")]), "'Nowhere' is neither"),
        (extraction(atoms=[atom(type="poem")]), r"atoms\.0\.type"),
        (extraction(atoms=[atom(confidence=-0.1)]), "between 0 and 1"),
        (extraction(atoms=[atom(title="  ")]), "1 to 200 characters"),
        (extraction(atoms=[atom(title="x" * 201)]), "1 to 200 characters"),
        (extraction(links=[link(source=2)]), "no atom at 2"),
        (extraction(links=[link(target=-1)]), "no other atom"),
        (extraction(links=[link(target=0)]), "no other atom"),
        (extraction(links=[link(target_atom_id=9)]), "exactly one"),
        (extraction(links=[link(target=None)]), "exactly one"),
        (extraction(links=[link(target=None, target_atom_id=8)]), "8 is no known atom"),
        (extraction()[:-3], "Invalid JSON"),
        ('{"topics": [], "atoms": []}', "links: Field required"),
        ("", "Invalid JSON"),
    ],
)
def test_an_extraction_that_does_not_fit_is_refused_by_name(answer: str, reason: str) -> None:
    with pytest.raises(UnusableAnswerError, match=reason):
        read_extraction(answer, SENT, KNOWN)


def test_what_fits_is_taken_in_the_spelling_that_is_known() -> None:
    answer = extraction(
        atoms=[atom(message_ids=[2, 1, 2], title=" a\x00b "), atom(topic=None), atom(topic="NEW")],
        links=[link(), link(source=1, target=None, target_atom_id=9)],
        topics=[{"name": "New", "description": "d"}, {"name": "QUEUES", "description": "d"}],
    )
    found = read_extraction(answer, SENT, KNOWN)
    assert [topic.name for topic in found.topics] == ["New"]
    assert [atom.topic for atom in found.atoms] == ["Queues", None, "New"]
    assert found.atoms[0].message_ids == (2, 1)
    assert found.atoms[0].title == "ab"
    assert [(entry.source, entry.target, entry.target_atom_id) for entry in found.links] == [(0, 1, None), (1, None, 9)]
