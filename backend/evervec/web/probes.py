"""Whether the process is alive, and whether it can answer; without a key, and without a word about any data."""

from fastapi import FastAPI, Response

from evervec.pipeline.resources import Resources
from evervec.pipeline.status.readiness import Readiness, readiness


def add_probes(app: FastAPI, resources: Resources) -> None:
    """Add `/healthz` and `/readyz` to the application."""

    @app.get("/healthz")
    async def alive() -> dict[str, str]:
        """Tell that the process answers; nothing else is asked, so that no failure around it has it restarted."""
        return {"status": "alive"}

    @app.get("/readyz", responses={503: {"model": Readiness, "description": "What is missing."}})
    async def ready(response: Response) -> Readiness:
        """Tell whether requests can be answered, what is missing for that, and what waits without stopping it."""
        found = await readiness(resources)
        response.status_code = 200 if found.ready else 503
        return found
