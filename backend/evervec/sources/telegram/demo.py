"""The chat that `evervec demo` imports, a file of this package, and the questions that it answers."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class DemoQuestion:
    """A question in other words than the chat's; `answers` are ids of messages that should be among the top hits."""

    text: str
    answers: tuple[str, ...]


DEMO_QUESTIONS: Final = (
    DemoQuestion("smartphones with an incorrect clock", ("97", "98", "99", "101")),
    DemoQuestion("where are pictures stored", ("123", "166", "168")),
    DemoQuestion("Lieferung zur falschen Zeit, weil die Zeitzone nicht stimmt", ("25", "27", "30")),
)

BETTER_MODEL_QUESTION: Final = DemoQuestion("what happens when the disk is full", ("69",))
"""One that WordLlama does not understand, and a sentence encoder does."""


def demo_chat_path() -> Path:
    """Return the path of a Telegram Desktop export of one team chat.

    About three quarters of it are English and one quarter is German.
    """
    return Path(str(resources.files(__package__) / "demo_chat.json"))
