"""The local extractor as a whole: stories in two languages and more, knowledge over batches, any text at all."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from evervec.domain.extraction.knowledge import (
    AtomType,
    DatasetKnowledge,
    Extraction,
    KnownAtom,
    KnownTopic,
    LinkType,
    MessageText,
    Signal,
)
from evervec.embedders.local.embedder import LocalEmbedder
from evervec.extractors.local.extractor import LocalExtractor
from evervec.extractors.local.sentences import collapse

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def extractor() -> LocalExtractor:
    return LocalExtractor(LocalEmbedder())


def message(number: int, text: str, reply_to: int | None = None) -> MessageText:
    return MessageText(number, text, f"dev-{number % 3}", START + timedelta(minutes=number), reply_to)


def chat(*texts: str) -> list[MessageText]:
    return [message(number, text) for number, text in enumerate(texts, start=1)]


STORIES = [
    (AtomType.PROBLEM, "The problem is that workers hang when the database connection drops in the middle of a job."),
    (AtomType.PROBLEM, "Das Problem ist, dass der Worker beim Neustart hängt und keine Jobs mehr abholt."),
    (AtomType.PROBLEM, "Проблема в том, что воркер падает при разрыве соединения с базой."),
    (AtomType.PROBLEM, "El problema es que el servidor se cuelga cuando la cola de trabajos crece."),
    (AtomType.SOLUTION, "I fixed the leak by closing the connection pool before the worker process exits."),
    (AtomType.SOLUTION, "Ich habe den Connection Pool umgestellt, jetzt läuft die Migration wieder durch."),
    (AtomType.SOLUTION, "Исправили утечку: теперь воркер закрывает соединение после каждой задачи."),
    (AtomType.SOLUTION, "Hemos arreglado la fuga: ahora el servidor cierra cada conexión al terminar."),
    (AtomType.DECISION, "We decided to keep PostgreSQL as the only queue and drop the Redis cluster."),
    (AtomType.DECISION, "Wir haben entschieden, die Fotos im Object Storage statt in der Datenbank zu speichern."),
    (AtomType.DECISION, "Решили оставить одну очередь в PostgreSQL и отказаться от Redis."),
    (AtomType.DECISION, "Decidimos mantener una sola cola en PostgreSQL y quitar el clúster de Redis."),
    (AtomType.QUESTION, "How do we rotate the signing keys without logging every customer out?"),
    (AtomType.QUESTION, "Weiß jemand, wie lange die Sicherungen der Produktionsdatenbank aufbewahrt werden?"),
    (AtomType.INSIGHT, "It turns out that the autovacuum was disabled on the largest partition since January."),
    (AtomType.INSIGHT, "Es hat sich herausgestellt, dass der Index seit Januar nicht mehr benutzt wurde."),
    (AtomType.IDEA, "Maybe we could cache the rendered tracking pages in the key-value bucket for a minute."),
    (AtomType.IDEA, "Idee: wir könnten die gerenderten Seiten für eine Minute im Bucket zwischenspeichern."),
    (AtomType.BLOCKER, "We're blocked on the security review, so the release can't go out until they approve it."),
    (AtomType.BLOCKER, "Blocker: Für den neuen Carrier fehlen mir immer noch die Zugangsdaten zur Sandbox."),
    (AtomType.RISK, "Risk: if the primary fails during the swap we could lose the last few committed events."),
    (AtomType.RISK, "Noch ein Risiko: Wenn der Speicher voll läuft, könnten wir Ereignisse verlieren."),
    (AtomType.REQUIREMENT, "The tracking API must answer within 300 ms at the 95th percentile under full load."),
    (AtomType.REQUIREMENT, "Anforderung: Die Adressen der Empfänger müssen nach 90 Tagen gelöscht werden."),
]


@pytest.mark.parametrize(("kind", "text"), STORIES)
async def test_a_plain_statement_becomes_an_atom_of_its_type(
    extractor: LocalExtractor, kind: AtomType, text: str
) -> None:
    found = await extractor.extract([message(1, text)], DatasetKnowledge())
    assert [(atom.type, atom.content) for atom in found.atoms] == [(kind, text)]
    assert found.atoms[0].message_ids == (1,)
    assert 0.2 <= found.atoms[0].confidence <= 0.95
    assert 0 < len(found.atoms[0].title) <= 73


SMALL_TALK = [
    "Good morning everyone!",
    "👍👍👍",
    "Mittag? Ich hätte Lust auf Pizza 🍕",
    "Thanks, see you on Monday. Have a nice weekend!",
    "Danke dir, schönen Feierabend zusammen!",
    "lunch at 12?",
    "Prepare release v0.11.1 (#506)\n\nPrepare release v0.11.1 containing #504 and #505.",
    "",
    "   \n\t ",
]


@pytest.mark.parametrize("text", SMALL_TALK)
async def test_small_talk_and_chores_state_nothing_and_are_no_signal(extractor: LocalExtractor, text: str) -> None:
    [score] = await extractor.score([message(1, text)])
    assert score.signal is not Signal.SIGNAL
    assert not (await extractor.extract([message(1, text)], DatasetKnowledge())).atoms


async def test_code_traces_and_quotes_are_never_atoms(extractor: LocalExtractor) -> None:
    text = (
        "The import fails with an error when the export has no messages.\n\n"
        "```\nthe problem is that this line must never be an atom, we decided\n```\n\n"
        "Traceback (most recent call last):\n"
        '  File "ingest.py", line 12, in run\n'
        "ValueError: the problem is that messages must not be empty\n\n"
        "> We decided to ignore it because the problem is not important.\n\n"
        "    raise ValueError('we must fix this problem')\n"
    )
    found = await extractor.extract([message(1, text)], DatasetKnowledge())
    assert [atom.content for atom in found.atoms] == ["The import fails with an error when the export has no messages."]


async def test_an_atom_is_the_verbatim_text_of_its_message(extractor: LocalExtractor) -> None:
    text = (
        "Rescue stuck jobs\n\nThe problem is that a job whose worker was killed stays\nin the running state"
        " for ever. Here, add a rescuer that moves such jobs\nback to available after an hour, which fixes the problem."
    )
    found = await extractor.extract([message(1, text)], DatasetKnowledge())
    assert {atom.type for atom in found.atoms} == {AtomType.PROBLEM, AtomType.SOLUTION}
    assert all(atom.content in collapse(text) for atom in found.atoms)


async def test_the_same_statement_in_two_messages_is_one_atom(extractor: LocalExtractor) -> None:
    text = "We decided to keep PostgreSQL as the only queue."
    found = await extractor.extract([message(1, text), message(2, f"{text.upper()}")], DatasetKnowledge())
    assert [atom.message_ids for atom in found.atoms] == [(1, 2)]


async def test_a_statement_that_is_known_comes_back_with_the_known_words(extractor: LocalExtractor) -> None:
    atom = KnownAtom(
        7, AtomType.DECISION, "Keep PostgreSQL", "we decided to keep PostgreSQL as the only queue", None, (1,)
    )
    found = await extractor.extract(
        [message(2, "We decided to keep PostgreSQL as the only queue.")], DatasetKnowledge(atoms=[atom])
    )
    assert [(one.title, one.content) for one in found.atoms] == [(atom.title, atom.content)]
    assert not any(link.target_atom_id == 7 for link in found.links)


STUCK = (
    "Job rescue: the problem is that a stuck job is never retried when its worker crashes.",
    "We decided that job rescue runs every minute on the leader.",
    "Job rescue must never touch a job whose worker still sends a heartbeat.",
    "The graceful shutdown fails when a job ignores its context for too long.",
    "We decided that a graceful shutdown waits ten seconds before it cancels jobs.",
    "Graceful shutdown must always hand back the jobs it still holds.",
    "How long are the nightly backups of the main database kept?",
)


async def test_topics_are_named_by_the_phrases_that_statements_share(extractor: LocalExtractor) -> None:
    found = await extractor.extract(chat(*STUCK), DatasetKnowledge())
    assert [atom.topic for atom in found.atoms] == ["Job rescue"] * 3 + ["Graceful shutdown"] * 3 + [None]
    assert {topic.name for topic in found.topics} == {"Job rescue", "Graceful shutdown"}


async def test_a_known_topic_takes_statements_before_a_new_one_is_made(extractor: LocalExtractor) -> None:
    known = DatasetKnowledge(topics=[KnownTopic(3, "Graceful shutdowns", "Graceful shutdowns: context, cancel")])
    found = await extractor.extract(chat(*STUCK), known)
    assert "Graceful shutdown" not in {topic.name for topic in found.topics}
    assert [atom.topic for atom in found.atoms[3:6]] == ["Graceful shutdowns"] * 3


async def test_a_single_statement_makes_no_topic(extractor: LocalExtractor) -> None:
    found = await extractor.extract(chat(STUCK[0]), DatasetKnowledge())
    assert (found.topics, found.atoms[0].topic) == ([], None)


async def test_a_fix_in_reply_solves_the_problem(extractor: LocalExtractor) -> None:
    found = await extractor.extract(
        [
            message(1, "The problem is that the relay hangs when the connection to the primary drops."),
            message(2, "Fixed by setting TCP keepalives on the relay connection to the primary.", reply_to=1),
        ],
        DatasetKnowledge(),
    )
    assert [(link.source, link.type, link.target) for link in found.links] == [(1, LinkType.SOLVES, 0)]


async def test_a_reply_links_to_an_atom_of_an_earlier_batch(extractor: LocalExtractor) -> None:
    asked = KnownAtom(
        5, AtomType.QUESTION, "Store photos?", "Where do we store the delivery photos of the drivers?", None, (1,)
    )
    found = await extractor.extract(
        [message(2, "We decided to store the delivery photos in object storage.", reply_to=1)],
        DatasetKnowledge(atoms=[asked]),
    )
    assert [(link.type, link.target, link.target_atom_id) for link in found.links] == [(LinkType.SOLVES, None, 5)]


async def test_a_reversal_contradicts_what_it_answers(extractor: LocalExtractor) -> None:
    found = await extractor.extract(
        [
            message(1, "We decided to use NOTIFY in the outbox trigger to wake the relay."),
            message(2, "I was wrong: we decided against NOTIFY in the outbox trigger, the relay polls.", reply_to=1),
        ],
        DatasetKnowledge(),
    )
    assert [(link.source, link.type, link.target) for link in found.links] == [(1, LinkType.CONTRADICTS, 0)]


def wild() -> list[tuple[str, str]]:
    return [
        ("emoji", "🎉🔥🙈" * 300),
        ("right to left", "يجب أن يعمل الخادم دائما. هل يعمل؟ " * 50),
        ("one word", "a" * 1_000_000),
        ("one line", "The problem is that it must fail. " * 30_000),
        ("lines", "- must\n" * 150_000),
        ("ticks", "`" * 100_000),
        ("dots", ". " * 500_000),
        ("brackets", "(" * 200_000 + "[" * 200_000),
        ("code only", "```\nfunc main() { panic(1) }\n```"),
        ("control characters", "\x01\x02\u2028\u200b\ufeff must \x7f"),
        ("wide blanks", "\u3000\u00a0" * 10_000),
    ]


@pytest.mark.parametrize(("name", "text"), wild(), ids=[name for name, _ in wild()])
@pytest.mark.timeout(60)
async def test_any_text_is_read_in_bounded_time(extractor: LocalExtractor, name: str, text: str) -> None:
    [score] = await extractor.score([message(1, text)])
    found = await extractor.extract([message(1, text)], DatasetKnowledge())
    assert 0 <= score.value <= 1
    assert all(20 <= len(atom.content) <= 500 for atom in found.atoms)


async def test_the_same_input_gives_the_same_answer(extractor: LocalExtractor) -> None:
    messages = chat(*STUCK, *(text for _, text in STORIES))
    known = DatasetKnowledge(topics=[KnownTopic(1, "Object storage", "Object storage: photos")])

    async def once(with_messages: Sequence[MessageText]) -> Extraction:
        return await LocalExtractor(LocalEmbedder()).extract(with_messages, known)

    assert await once(messages) == await once(messages)


async def test_nothing_in_is_nothing_out(extractor: LocalExtractor) -> None:
    assert list(await extractor.score([])) == []
    assert await extractor.extract([], DatasetKnowledge()) == Extraction()
