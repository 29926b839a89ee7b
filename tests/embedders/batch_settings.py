"""A batch client of each provider with a fake provider behind it, and a job's way in few words."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import numpy as np

from evervec.domain.batch import BatchClient, Line, MediaLine, RemoteJob
from evervec.domain.protocols import Vectors
from evervec.embedders.catalog import open_batch_client
from evervec.errors import ProviderError
from tests.fakes import FakeProvider, expected_vectors

DIMS: Final = 24
MODEL: Final = "fake-embed"
CHAT_MODEL: Final = "fake-chat"
KEY: Final = "the-key-that-is-a-secret"
LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)

Call = Callable[[BatchClient], Any]


@dataclass(frozen=True)
class Wire:
    """How endpoints of a provider are named to the fake."""

    create: str
    describe: str
    show: str
    listed: str
    download: str
    upload: str


WIRES: Final[Mapping[str, Wire]] = {
    "gemini": Wire(
        create=":asyncBatchEmbedContent",
        describe=":batchGenerateContent",
        show="GET /v1beta/batches/*",
        listed="GET /v1beta/batches",
        download=":download",
        upload="POST /upload/v1beta/files",
    ),
    "openai": Wire(
        create="POST /v1/batches",
        describe="POST /v1/batches",
        show="GET /v1/batches/*",
        listed="GET /v1/batches",
        download="GET /v1/files/*/content",
        upload="POST /v1/files",
    ),
}


@dataclass
class Gathered:
    """All results of a job."""

    vectors: dict[str, Vectors] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    errors: dict[str, tuple[str, str]] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    garbled: int = 0


@dataclass
class Setting:
    """One client, its fake provider, and a folder for input files."""

    type: str
    fake: FakeProvider
    client: BatchClient
    folder: Path

    @property
    def wire(self) -> Wire:
        """The provider's endpoints."""
        return WIRES[self.type]

    def write(self, texts: Sequence[str]) -> Path:
        """Write an input file whose keys are `k0`, `k1`, …"""
        path = self.folder / f"{uuid4().hex}.jsonl"
        with path.open("wb") as file:
            for place, text in enumerate(texts):
                file.write(self.client.line(Line(f"k{place}", text)))
        return path

    async def upload(self, texts: Sequence[str], intent: UUID | None = None) -> str:
        """Upload an input file of these texts. Return its remote name."""
        return await self.client.upload(intent or uuid4(), self.write(texts))

    async def create(self, texts: Sequence[str], intent: UUID | None = None) -> RemoteJob:
        """Return a job that was just created."""
        intent = intent or uuid4()
        return await self.client.create_embedding_job(intent, await self.upload(texts, intent))

    async def describe(self, media: Sequence[MediaLine]) -> RemoteJob:
        """Return a finished job that described these."""
        path, intent = self.folder / "media.jsonl", uuid4()
        path.write_bytes(b"".join(self.client.media_line(line) for line in media))
        return await self.finish(await self.client.describe_media(intent, await self.client.upload(intent, path)))

    async def finish(self, job: RemoteJob) -> RemoteJob:
        """Return the job as it is when it is over."""
        for _ in range(5):
            job = await self.client.get_job_status(job.external_id)
            if job.state.over:
                return job
        raise AssertionError(f"the job is still {job.said}")

    async def run(self, texts: Sequence[str]) -> Gathered:
        """From texts to all their results."""
        return await self.gather(await self.finish(await self.create(texts)))

    async def gather(
        self, job: RemoteJob, *, lines: int = 7, dimensions: int | None = DIMS, into: Gathered | None = None
    ) -> Gathered:
        """All results of a job; `into` keeps what came before an error."""
        all_ = into or Gathered()
        async for found in self.client.download_results(job, lines=lines, dimensions=dimensions):
            assert len(found.keys) + len(found.errors) + found.garbled <= lines
            rows = found.vectors if found.vectors is not None else found.texts
            assert rows is not None
            assert len(rows) == len(found.keys)
            if found.vectors is not None:
                assert found.vectors.dtype == np.float32
                all_.vectors |= dict(zip(found.keys, found.vectors, strict=True))
            all_.texts |= dict(zip(found.keys, found.texts or (), strict=False))
            all_.keys += found.keys
            all_.errors |= {key: (code, message) for key, code, message in found.errors}
            all_.garbled += found.garbled
        return all_


@asynccontextmanager
async def setting(type_: str, folder: Path, *, dims: int = DIMS) -> AsyncIterator[Setting]:
    """Return a client that has the right key."""
    async with FakeProvider(dims=dims, api_key=KEY) as fake:
        client = open_client(type_, fake.url)
        yield Setting(type_, fake, client, folder)
        await client.aclose()


def open_client(type_: str, url: str, *, key: str = KEY, chat_model: str | None = CHAT_MODEL) -> BatchClient:
    """Return a client of that provider."""
    return open_batch_client(type_, base_url=url, model=MODEL, chat_model=chat_model, api_key=key, name=type_)


def right(gathered: Gathered, texts: Sequence[str], places: Sequence[int] | None = None) -> bool:
    """Whether exactly these places have vectors, each the one of its text."""
    wanted = list(places if places is not None else range(len(texts)))
    expected = expected_vectors(MODEL, texts, DIMS)
    same = all(np.array_equal(gathered.vectors[f"k{place}"], expected[place]) for place in wanted)
    return same and set(gathered.vectors) == {f"k{place}" for place in wanted}


async def problem_of(work: Any) -> ProviderError:
    """Return the error that a call or a stream of results ends with."""
    try:
        if hasattr(work, "__aiter__"):
            async for _ in work:
                continue
        else:
            await work
    except ProviderError as problem:
        return problem
    raise AssertionError("nothing was refused")
