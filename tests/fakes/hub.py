"""A Hugging Face hub of our own: it serves the files of repositories to the hub's own client, and refuses when told to."""

from hashlib import sha1, sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web
from aiohttp.typedefs import Handler

Refusal = tuple[int, str]
GATED: Refusal = (403, "GatedRepo")
MISSING: Refusal = (404, "RepoNotFound")


class Repository:
    """The files of a folder, as they are now."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        self.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        self.digests = {name: sha256(content).hexdigest() for name, content in self.files.items()}
        self.revision = sha1(repr(sorted(self.digests.items())).encode()).hexdigest()


class FakeHub:
    """`async with FakeHub({"owner/name": folder}) as hub:` serves at `hub.url` until the block ends.

    Each repository is the files of a folder; `push` brings a new version of one. `refusals` has the HTTP status and the hub's
    word for what is wrong with a repository. `requests` are the methods and paths that came.
    """

    def __init__(self, folders: dict[str, Path]) -> None:
        self.repositories = {name: Repository(folder) for name, folder in folders.items()}
        self.refusals: dict[str, Refusal] = {}
        self.requests: list[str] = []
        self.url = ""
        self._runner: web.AppRunner | None = None

    def push(self, name: str, folder: Path) -> None:
        """Make the files of a folder the newest version of a repository."""
        self.repositories[name] = Repository(folder)

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._answer])
        app.router.add_get("/api/models/{owner}/{name}/revision/{revision}", self._model)
        app.router.add_get("/api/models/{owner}/{name}/tree/{revision}", self._tree)
        app.router.add_get("/{owner}/{name}/resolve/{revision}/{path:.+}", self._file)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        status, word = self.refusals.get(self._name(request), (0, ""))
        if not status and self._name(request) not in self.repositories:
            status, word = MISSING
        if status:
            return web.json_response({"error": word}, status=status, headers={"X-Error-Code": word})
        return await handler(request)

    @staticmethod
    def _name(request: web.Request) -> str:
        return f"{request.match_info.get('owner')}/{request.match_info.get('name')}"

    async def _model(self, request: web.Request) -> web.Response:
        repository = self.repositories[self._name(request)]
        siblings = [{"rfilename": name} for name in repository.files]
        return web.json_response({"id": self._name(request), "sha": repository.revision, "siblings": siblings})

    async def _tree(self, request: web.Request) -> web.Response:
        repository = self.repositories[self._name(request)]
        return web.json_response(
            [
                {"type": "file", "path": name, "size": len(content), "oid": repository.digests[name][:40]}
                for name, content in repository.files.items()
            ]
        )

    async def _file(self, request: web.Request) -> web.Response:
        repository, path = self.repositories[self._name(request)], request.match_info["path"]
        headers = {"ETag": f'"{repository.digests[path]}"', "X-Repo-Commit": repository.revision}
        return web.Response(body=repository.files[path], headers=headers, content_type="application/octet-stream")
