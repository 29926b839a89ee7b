"""What both batch protocols of the fake share: jobs, files and how tests wish them to go; the wire lives elsewhere."""

import itertools
import shutil
import tempfile
import weakref
from collections import Counter, deque
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal, get_args

from tests.fakes.jobs import ENDED, Job, Outcome, Scan, State
from tests.fakes.line_rules import LineRules
from tests.fakes.remote_files import Incoming, RemoteFile, stored
from tests.fakes.results import count_failed

WISHES = ("polls", "outcome", "spelling", "results_in", "most_jobs", "most_tokens", "late_limits")
ENDINGS: dict[str, State] = {
    "fail": State.FAILED,
    "expire": State.EXPIRED,
    "cancel": State.CANCELLED,
    "unknown_state": State.UNKNOWN,
}
LINE_WISHES = ("reverse", "cut_last_line", "garbage_line", "unknown")


class LimitPassed(Exception):
    """This job would be one too many, or its tokens too many, for what is allowed to wait at once."""

    def __init__(self, of: Literal["jobs", "tokens"], most: int) -> None:
        super().__init__(f"at most {most} {of} may wait at once")
        self.of, self.most = of, most


class Batches(LineRules):
    """Every job and file of one fake provider, and the wishes of the test.

    `polls` is how many times a job's status is asked before it ends: 0 ends it as it is created, and because it is
    compared at each poll, a large number holds jobs until it is lowered. `outcome` is that of every job created from
    now on, unless `next_outcomes` names some for the very next ones. Line rules (see `LineRules`) are those of the
    moment in which a job ends. `spelling` and `results_in` are Gemini's words and where it names the result file.
    `most_jobs` and `most_tokens` limit what has not ended: one more is answered with 429, or, of tokens and where
    `late_limits` is set, with an OpenAI job that is created and fails, as the real one does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[Job] = []
        self.files: dict[str, RemoteFile] = {}
        self.deleted_files: list[str] = []
        self.digests: dict[str, str] = {}
        self.uploads: dict[str, Incoming] = {}
        self.polls = 1
        self.outcome: Outcome = "succeed"
        self.next_outcomes: deque[Outcome] = deque()
        self.spelling: Literal["BATCH_STATE", "JOB_STATE"] = "BATCH_STATE"
        self.results_in: Literal["both", "response", "metadata"] = "both"
        self.most_jobs: int | None = None
        self.most_tokens: int | None = None
        self.late_limits = False
        self._numbers = itertools.count(1)

    def wish(self, **wishes: Any) -> None:
        """Set several switches by their names, as another process does."""
        if unknown := sorted(set(wishes) - {*WISHES, *LINE_WISHES, "next_outcomes"}):
            raise ValueError(f"there is no switch {', '.join(unknown)}; there are {', '.join((*WISHES, *LINE_WISHES))}")
        self.next_outcomes.extend(wishes.pop("next_outcomes", ()))
        for name, value in wishes.items():
            setattr(self, name, value)

    def heal(self) -> None:
        """Let jobs and lines succeed again; what has ended stays as it ended."""
        self.outcome = "succeed"
        self.next_outcomes.clear()
        self.forgive()

    def texts_paid(self) -> Counter[str]:
        """Count how often each text was in a job that was created and not cancelled, or found faulty, before it ran.

        A job that fails or expires has run: what was in it and is sent again counts twice.
        """
        return Counter(text for job in self.jobs if not job.never_ran for _, text in job.lines)

    def job(self, id_: str, protocol: str) -> Job | None:
        """Return a job as its owner may see it."""
        return next((job for job in self.visible(protocol) if job.id == id_), None)

    def visible(self, protocol: str) -> list[Job]:
        """Return the jobs that a list shows, newest first."""
        return [
            job
            for job in reversed(self.jobs)
            if job.protocol == protocol and not job.deleted and job.outcome != "vanish"
        ]

    def file(self, id_: str, protocol: str) -> RemoteFile | None:
        """Return a live file."""
        found = self.files.get(id_)
        return found if found and found.protocol == protocol else None

    def receive(self, wish: dict[str, Any]) -> tuple[str, Incoming]:
        """Make room on disk for a file that is about to arrive, and return the id of its upload."""
        number = next(self._numbers)
        return f"{number:06}", Incoming(self._folder / f"{number:06}", wish)

    @cached_property
    def _folder(self) -> Path:
        """Return the folder of uploads.

        It ends with this object and not with the server: jobs are looked at afterwards.

        It ends with this object and not with the server: jobs are looked at afterwards.
        """
        folder = Path(tempfile.mkdtemp(prefix="fake-provider-"))
        weakref.finalize(self, shutil.rmtree, folder, True)
        return folder

    def keep(self, file: RemoteFile) -> RemoteFile:
        """Make a file visible."""
        self.files[file.id] = file
        self.digests[file.id] = file.sha256
        return file

    def store(self, incoming: Incoming, id_: str | None, **about: Any) -> RemoteFile:
        """Make an upload that is whole a file, under its own id or one of ours."""
        name = id_ or ("file-" if about["protocol"] == "openai" else "") + token_hex(8)
        source = stored(incoming.path)
        incoming.file = RemoteFile(name, source=source, path=incoming.path, sha256=incoming.sha256, **about)
        return self.keep(incoming.file)

    def delete_file(self, id_: str) -> None:
        """Forget a file, as its owner asks."""
        self.files.pop(id_, None)
        self.deleted_files.append(id_)

    def inline(self, lines: Iterable[bytes]) -> Path:
        """Put lines that came in a request where those of a file are."""
        _, incoming = self.receive({})
        incoming.append(b"".join(line + b"\n" for line in lines))
        return incoming.path

    def create(self, protocol: str, scan: Scan, **about: Any) -> Job:
        """Create a job. Raises `LimitPassed`."""
        passed = self._limit(protocol, scan)
        if passed and not (self.late_limits and passed.of == "tokens" and protocol == "openai"):
            raise passed
        number = len(self.jobs) + 1
        outcome = self.next_outcomes.popleft() if self.next_outcomes else self.outcome
        if outcome not in get_args(Outcome):
            raise ValueError(f"no job ends with '{outcome}'; there are {', '.join(get_args(Outcome))}")
        job = Job(f"batch_{token_hex(8)}", number, protocol, scan=scan, outcome=outcome, **about)
        if passed:
            job.outcome, job.code, job.message = "fail", "token_limit_exceeded", str(passed)
        elif scan.defect:
            job.outcome, job.code, job.message = "fail", "invalid_request", scan.defect
        job.never_ran = bool(passed or scan.defect)
        self.jobs.append(job)
        if self.polls == 0:
            self._end(job)
        return job

    def poll(self, job: Job) -> None:
        """Poll a job's status, which is all that moves it."""
        job.polled += 1
        if job.state is State.CANCELLING:
            self._close(job, State.CANCELLED)
        elif job.state in (State.PENDING, State.RUNNING):
            if job.polled > self.polls:
                self._end(job)
            else:
                job.state = State.RUNNING

    def cancel(self, job: Job, *, at_once: bool) -> None:
        """Stop a job that has not ended; not at once: by the next poll."""
        if job.state in ENDED:
            return
        job.never_ran = job.never_ran or job.state is State.PENDING
        if at_once:
            self._close(job, State.CANCELLED)
        else:
            job.state = State.CANCELLING

    def _limit(self, protocol: str, scan: Scan) -> LimitPassed | None:
        waiting = [job for job in self.jobs if job.protocol == protocol and job.state not in ENDED]
        if self.most_jobs is not None and len(waiting) >= self.most_jobs:
            return LimitPassed("jobs", self.most_jobs)
        if self.most_tokens is not None and sum(job.scan.tokens for job in waiting) + scan.tokens > self.most_tokens:
            return LimitPassed("tokens", self.most_tokens)
        return None

    def _end(self, job: Job) -> None:
        self._close(job, ENDINGS.get(job.outcome, State.SUCCEEDED))
        job.message = job.message or f"The job came to its end: {job.outcome}."
        job.rules = LineRules(list(self.rules), self.reverse, self.cut_last_line, self.garbage_line, self.unknown)
        job.failed_lines = count_failed(job)
        for file in job.publish(job):
            self.keep(file)
            if job.outcome == "results_vanish":
                del self.files[file.id]

    def _close(self, job: Job, state: State) -> None:
        job.state, job.ended = state, datetime.now(UTC)
