"""PostgreSQL's own client programs, of the embedded server's version: psql as any team's script, pg_dump, pg_restore."""

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from evervec.stack import binaries

PROGRAMS = binaries.postgres().executable.parent
SEPARATOR = "\x1f"


class ProgramError(Exception):
    """A program ended with an error: what it wrote to stderr."""


@dataclass(frozen=True)
class Psql:
    """psql on one database; every call is a session of its own, and statements are sent one by one."""

    url: str
    settings: dict[str, str] = field(default_factory=dict)
    """Settings of each session, as PGOPTIONS sets them."""

    def __call__(self, *statements: str) -> list[list[str]]:
        """Run statements and return all rows that they answered, as text. Raises `ProgramError` at the first error."""
        script = "".join(f"{statement.rstrip().removesuffix(';')};\n" for statement in statements)
        return self.script(script)

    def script(self, script: str, *arguments: str) -> list[list[str]]:
        """Run a script as psql reads it, with its COPY data and meta-commands."""
        said = run("psql", "-XqAt", "-F", SEPARATOR, "-v", "ON_ERROR_STOP=1", *arguments, self.url, given=script,
                   options=self.settings)  # fmt: skip
        return [line.split(SEPARATOR) for line in said.splitlines()]

    def value(self, statement: str) -> str:
        """Return the only value that a query answers."""
        ((found,),) = self(statement)
        return found

    def number(self, statement: str) -> int:
        """Return the number that a query answers."""
        return int(self.value(statement))

    def given(self, **settings: str) -> "Psql":
        """Return the same with settings for each session."""
        return Psql(self.url, {**self.settings, **settings})

    def logged_in_as(self, role: str) -> "Psql":
        """Return psql of another role."""
        return Psql(as_role(self.url, role), self.settings)

    def refused(self, *statements: str) -> str:
        """Run statements that must fail; return the error."""
        try:
            self(*statements)
        except ProgramError as error:
            return str(error)
        raise AssertionError(f"not refused: {statements}")


def run(program: str, *arguments: str, given: str = "", options: dict[str, str] | None = None) -> str:
    """Run a client program to its end and return its output. Raises `ProgramError` with what it says otherwise."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    if options:
        environment["PGOPTIONS"] = " ".join(f"-c {name}={_escaped(value)}" for name, value in options.items())
    done = subprocess.run(
        [PROGRAMS / program, *arguments], input=given, env=environment, capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise ProgramError(f"{program} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def dump(url: str, *arguments: str) -> str:
    """Return a plain dump; without the token that differs from dump to dump."""
    lines = run("pg_dump", url, *arguments).splitlines()
    return "\n".join(line for line in lines if not line.startswith(("\\restrict", "\\unrestrict")))


def archive(url: str, path: Path, *arguments: str) -> Path:
    """Write a dump in pg_restore's own format and return its path."""
    run("pg_dump", url, "-Fc", "-f", str(path), *arguments)
    return path


def as_role(url: str, role: str) -> str:
    """Return the address for another role."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}").geturl()


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
