"""The setting of the batch benchmarks: a provider in a process of its own, its record here, and processes that do one thing."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
from pydantic import SecretStr

from evervec.pipeline.embedding import providers
from evervec.pipeline.resources import Resources
from evervec.store import secrets
from evervec.store.providers import ProviderDraft
from scripts.bench import mirror_process

MODEL = "bench"
PATIENCE = 30.0


@dataclass(frozen=True)
class Stage:
    """A provider's address, and the key that its record is sealed with."""

    url: str
    key: str

    async def add(self, resources: Resources, type_: str) -> None:
        """Make the provider the active one of an empty database, HNSW indexes and all."""
        settings = resources.settings.model_copy(update={"secret_key": SecretStr(self.key)})
        sealed = replace(resources, settings=settings)
        await providers.add(
            sealed,
            ProviderDraft(type_, type_, base_url=self.url, model=MODEL, api_key="any", usd_per_million_tokens=0.15),
        )

    async def run_child(self, resources: Resources, *arguments: str) -> dict[str, Any]:
        """Run one command of `deferred_process` on this database; return what it said. Raises `RuntimeError`."""
        environment = {
            **os.environ,
            "EVERVEC_DATABASE_URL": resources.database.url,
            "EVERVEC_HOME": str(resources.settings.home),
            "EVERVEC_SECRET_KEY": self.key,
        }
        module = ("-m", "scripts.bench.deferred_process", *arguments)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, *module, env=environment, stdout=pipe, stderr=pipe
        )
        return await mirror_process.answer(process)


@asynccontextmanager
async def open_stage(dimensions: int) -> AsyncIterator[Stage]:
    """Start the fake provider of the tests, whose jobs are done when they are created; stop it at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fakes", "--dims", str(dimensions), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode().strip()
        if not url:
            raise RuntimeError("the fake provider did not start: `python -m tests.fakes` says why")
        async with httpx.AsyncClient(trust_env=False) as client:
            (await client.post(f"{url}/_batches", json={"polls": 0})).raise_for_status()
        yield Stage(url, secrets.new_key())
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
