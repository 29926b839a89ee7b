"""A message read once: its sentences with language, tokens and cues; scoring, atoms, topics and links work on this."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from evervec.domain.extraction.knowledge import MessageText
from evervec.extractors.local.cues import CueMatch, Lexicon, choose, tokens
from evervec.extractors.local.sentences import READ_AT_MOST, Sentence, SentencePlace, sentences

_TICKET = re.compile(r"(?<![\w/&])#(\d{1,7})\b")


@dataclass(frozen=True)
class ReadSentence:
    """A sentence with the lexicon of its language and every cue in it."""

    sentence: Sentence
    lexicon: Lexicon
    tokens: Sequence[str]
    hits: Sequence[CueMatch]

    def weight(self, label: str) -> float:
        """Return the weight of the cues for `label`, less the cues against it."""
        return sum(hit.weight for hit in self.hits if hit.label == label)

    def says_plainly(self, label: str) -> bool:
        """Return whether one strong cue of `label` is in the sentence, not only several weak ones."""
        return any(hit.label == label and hit.weight >= 1 for hit in self.hits)

    def has(self, label: str) -> bool:
        """Return whether any cue of `label` is in the sentence."""
        return any(hit.label == label for hit in self.hits)


@dataclass(frozen=True)
class ReadMessage:
    """A message and what was read in it. `own_ticket` is the one in its title (`(#12)`), `tickets` are those it names."""

    message: MessageText
    sentences: Sequence[ReadSentence]
    own_ticket: str | None
    tickets: frozenset[str]

    @property
    def title(self) -> str:
        """Return the message's title; blank where it has none."""
        first = self.sentences[0].sentence if self.sentences else None
        return first.text if first and first.place is SentencePlace.TITLE else ""


def read(message: MessageText, lexicons: Sequence[Lexicon]) -> ReadMessage:
    """Read one message; the language is chosen sentence by sentence, a draw is decided by the whole message."""
    found = sentences(message.text)
    spoken = [tokens(sentence.text) for sentence in found]
    main = choose(lexicons, [token for words in spoken for token in words])
    read_sentences = []
    for sentence, words in zip(found, spoken, strict=True):
        lexicon = choose(lexicons, words, main)
        read_sentences.append(ReadSentence(sentence, lexicon, words, lexicon.find(words)))
    own, named = _tickets(message.text[:READ_AT_MOST])
    return ReadMessage(message, read_sentences, own, named)


def _tickets(text: str) -> tuple[str | None, frozenset[str]]:
    first_line, _, _ = text.strip().partition("\n")
    in_title = _TICKET.findall(first_line) if first_line.rstrip().endswith(")") else []
    own = in_title[-1] if in_title else None
    return own, frozenset(_TICKET.findall(text)) - {own}
