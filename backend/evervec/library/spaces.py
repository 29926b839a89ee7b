"""The spaces of datasets for a program: another model is built beside the one that is searched, then searched, or given up."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evervec.pipeline.resources import Resources
    from evervec.pipeline.spaces.carry_out import Dropped
    from evervec.pipeline.spaces.flip import Flipped
    from evervec.pipeline.spaces.progress import BuildStatus
    from evervec.pipeline.spaces.report import BuildPlan, SpaceStatus


class Spaces:
    """The verbs of `evervec spaces`, as `core.spaces`: of one dataset, or of all where none is named."""

    def __init__(self, resources: "Resources") -> None:
        self._resources = resources

    async def status(self, dataset: str | None = None) -> "list[BuildStatus]":
        """Return how far the spaces are that are written to beside those that are searched."""
        from evervec.pipeline.spaces.progress import builds

        return await builds(self._resources, dataset=dataset)

    async def plan(
        self, provider: str, dataset: str | None = None, *, template: str | None = None, chunk_tokens: int | None = None
    ) -> "list[BuildPlan]":
        """Return what `build` with the same arguments would embed; nothing is changed."""
        from evervec.pipeline.spaces.build import BuildOptions
        from evervec.pipeline.spaces.report import plan

        return await plan(self._resources, BuildOptions(provider, template, chunk_tokens), dataset=dataset)

    async def build(
        self,
        provider: str,
        dataset: str | None = None,
        *,
        template: str | None = None,
        chunk_tokens: int | None = None,
        activate: bool = False,
        batch: bool = False,
        wait: bool = True,
    ) -> "list[BuildStatus]":
        """Fill the space of another provider, template or size of chunks, while the present one is searched.

        With `activate` it is searched by itself as soon as every row has its vector, with `batch` the rows that are there are
        left to batch jobs. Without `wait` the workers fill it; a second call goes on where the first one was interrupted.
        Raises `UnknownProviderError`, `NoBatchError`, and `Refused` for a dataset that builds another space.
        """
        from evervec.pipeline.spaces.build import BuildOptions
        from evervec.pipeline.spaces.carry_out import build

        options = BuildOptions(provider, template, chunk_tokens, automatic=activate, by_batch=batch)
        return await build(self._resources, options, dataset=dataset, wait=wait)

    async def activate(self, dataset: str | None = None, *, allow_missing: int = 0) -> "list[Flipped]":
        """Search in the next space from now on; the present one is kept for a rollback.

        Raises `Refused` where more than `allow_missing` rows of a dataset have no vector there, and where none builds one.
        """
        from evervec.pipeline.spaces.flip import activate

        return await activate(self._resources, dataset=dataset, allow_missing=allow_missing)

    async def rollback(self, dataset: str | None = None, *, allow_missing: int = 0) -> "list[Flipped]":
        """Search in the former space again; the present one is kept, and can be activated again. Raises as `activate` does."""
        from evervec.pipeline.spaces.flip import roll_back

        return await roll_back(self._resources, dataset=dataset, allow_missing=allow_missing)

    async def drop(self, dataset: str | None = None, *, state: str | None = None) -> "Dropped":
        """Give up the spaces that are not searched, with their vectors: the `next` one, the `previous` one, or both.

        Raises `Refused` where there is none.
        """
        from evervec.pipeline.spaces.carry_out import drop

        return await drop(self._resources, dataset=dataset, state=state)

    async def list(self) -> "list[SpaceStatus]":
        """Return every space, and how many datasets are searched in it, build it, or keep it for a rollback."""
        from evervec.pipeline.spaces.report import listed

        return await listed(self._resources)
