"""Runs `evervec` in this process, which is fast, and as a process of its own where that is what a test is about."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson

from evervec.cli.main import main

EVERVEC = Path(sys.executable).with_name("evervec")
WORDS_OF_A_CRASH = ("Traceback", 'File "', "bug in Evervec", "Exception ignored", "never awaited")


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    def document(self) -> Any:
        """stdout as the one JSON document that it is."""
        return orjson.loads(self.out)

    def refused(self, *words: str, code: int = 2) -> None:
        """Assert one clear error: these words on stderr, nothing on stdout, no trace of a crash."""
        assert self.code == code, self
        assert not self.out, self
        said = " ".join(self.err.replace("│", " ").split())  # Typer frames what it says about wrong usage
        assert "rror" in said, self
        for word in words:
            assert word in said, self
        self.tidy()

    def tidy(self) -> None:
        """Assert that no traceback and no leftover of one was shown."""
        assert not any(word in self.out + self.err for word in WORDS_OF_A_CRASH), self


@dataclass(frozen=True)
class Command:
    """`evervec` with an environment; keyword arguments of a call change it (None: unset)."""

    environment: dict[str, str]

    def __call__(self, *arguments: object, **changes: object) -> Done:
        """Run it in this process."""
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, self.with_changes(changes), clear=True),
            patch.object(sys, "argv", ["evervec", *map(str, arguments)]),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                main()
                code: object = 0
            except SystemExit as end:
                code = end.code or 0
        assert isinstance(code, int), code
        return Done(code, out.getvalue(), err.getvalue())

    def start(self, *arguments: object, **changes: object) -> "subprocess.Popen[str]":
        """Start it as a process of its own, with pipes."""
        return subprocess.Popen(
            [EVERVEC, *map(str, arguments)],
            env=self.with_changes(changes),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def process(self, *arguments: object, **changes: object) -> Done:
        """Run it as a process of its own, to its end."""
        process = self.start(*arguments, **changes)
        out, err = process.communicate(timeout=180)
        return Done(process.returncode, out, err)

    def with_changes(self, changes: dict[str, object]) -> dict[str, str]:
        """Return the environment with some variables changed."""
        wanted = self.environment | {name: str(value) for name, value in changes.items() if value is not None}
        return {name: value for name, value in wanted.items() if name not in changes or changes[name] is not None}
