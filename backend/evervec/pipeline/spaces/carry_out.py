"""What a command or a program asks for: a space built to its end, or given up with all that it holds."""

from dataclasses import dataclass

from evervec.pipeline.embedding.embed import Progress
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces import build as building
from evervec.pipeline.spaces import progress as reporting
from evervec.pipeline.spaces import removal
from evervec.pipeline.spaces.build import BuildOptions
from evervec.pipeline.spaces.progress import BuildStatus


@dataclass(frozen=True)
class Dropped:
    """How many spaces of datasets were given up, and how many of their vectors are removed by now, each with its chunk."""

    dropped: int
    removed: int


async def build(
    resources: Resources,
    options: BuildOptions,
    *,
    dataset: str | None = None,
    wait: bool = True,
    progress: Progress | None = None,
) -> list[BuildStatus]:
    """Write a dataset, or all, to another space, too, and fill it; return how far it is. Raises as `start` does.

    Without `wait` the workers fill it. A second call goes on where the first one was interrupted.
    """
    await building.start(resources, options, dataset=dataset)
    if wait:
        await building.fill(resources, progress=progress, whole=True)
    return await reporting.builds(resources, dataset=dataset)


async def drop(resources: Resources, *, dataset: str | None = None, state: str | None = None) -> Dropped:
    """Give up the spaces of a dataset, or of all, that are not searched, with their vectors. Raises as `removal.drop` does."""
    dropped = await removal.drop(resources, dataset=dataset, state=state)
    return Dropped(len(dropped), await removal.purge(resources))
