"""The demo chat is a sound export, and its three questions find their answers with the local model."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import wordllama

from evervec.domain.extraction.message import IncomingMessage, RejectedMessage, SkippedMessage
from evervec.domain.text import is_blank
from evervec.sources.telegram.demo import DEMO_QUESTIONS, DemoQuestion, demo_chat_path
from evervec.sources.telegram.reader import read_export


@pytest.fixture(scope="module")
def messages() -> list[IncomingMessage]:
    return [found for found in read_export(demo_chat_path()) if isinstance(found, IncomingMessage)]


@pytest.fixture(scope="module")
def model() -> wordllama.WordLlamaInference:
    folder = Path(wordllama.__file__).parent
    return wordllama.WordLlama.load(cache_dir=folder, disable_download=True, dim=256)


def test_it_is_read_without_a_complaint(messages: list[IncomingMessage]) -> None:
    kinds = Counter(type(found) for found in read_export(demo_chat_path()))
    assert kinds[RejectedMessage] == 0
    assert kinds[SkippedMessage] >= 3
    assert 170 <= len(messages) <= 220
    assert not any(is_blank(message.text) for message in messages)


def test_it_has_people_replies_and_edits_in_the_order_of_time(messages: list[IncomingMessage]) -> None:
    ids = {message.external_id for message in messages}
    assert len({message.author for message in messages}) == 6
    assert all(message.reply_to in ids for message in messages if message.reply_to)
    assert sum(message.edited_at is not None for message in messages) >= 4
    times = [message.sent_at for message in messages]
    assert times == sorted(times)
    assert (times[-1] - times[0]).days > 30


@pytest.mark.parametrize("question", DEMO_QUESTIONS, ids=lambda question: question.text)
def test_the_answers_are_among_the_top_five_hits(
    question: DemoQuestion, messages: list[IncomingMessage], model: wordllama.WordLlamaInference
) -> None:
    vectors = np.nan_to_num(model.embed([message.text for message in messages], norm=True))
    scores = vectors @ model.embed([question.text], norm=True)[0]
    top = [messages[index].external_id for index in np.argsort(-scores)[:5]]
    assert set(question.answers) <= set(top)
