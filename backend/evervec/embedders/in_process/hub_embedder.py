"""The embedder whose model comes from the hub, or is in a folder; a library of its own opens it."""

import asyncio
from abc import abstractmethod
from importlib import import_module
from pathlib import Path
from typing import ClassVar

from evervec.domain.encoders import EncoderOptions
from evervec.domain.protocols import ModelProbe
from evervec.domain.vendors import Vendor
from evervec.embedders.in_process import hub
from evervec.embedders.in_process.embedder import InProcessEmbedder, LoadedEncoder, model_name
from evervec.embedders.in_process.hub import HubFiles
from evervec.errors import ConfigError
from evervec.extras import extra


class HubEmbedder(InProcessEmbedder):
    """An embedder of this process whose `probe` downloads a model by its name; no other call asks the network.

    `hub_url` is the hub that it is asked of, None the one that HF_ENDPOINT says.
    """

    vendor: ClassVar[Vendor]
    library: ClassVar[str]
    """The module that runs the model: it may not be installed, and takes seconds to import."""

    def __init__(
        self,
        model: str | None,
        *,
        name: str,
        options: EncoderOptions | None = None,
        hub_url: str | None = None,
    ) -> None:
        options = options or EncoderOptions()
        if not model and options.folder is None:
            raise ConfigError(name, f"give the model, for example `--model {self.vendor.model}`, or `--folder PATH`.")
        super().__init__(self.vendor.type, model or Path(str(options.folder)).name, options, name)
        self._hub_url = hub_url

    async def probe(self) -> ModelProbe:
        """Bring the model to this machine and load it; return its width and its window. Raise a `ProviderError` subclass."""
        await asyncio.get_running_loop().run_in_executor(self._documents, self._fetch)
        return await super().probe()

    def _fetch(self) -> None:
        if self._options.folder is None:
            self._import()
            hub.fetch(self._name, self._files(), self._hub_url)

    def _open(self) -> LoadedEncoder:
        self._import()
        if self._options.folder is None:
            folder, named = hub.choose(self._name, self._files(), self._model, self._digest)
        else:
            folder = Path(self._options.folder)
            if not folder.is_dir():
                raise ConfigError(self._name, f"there is no folder {str(folder)!r} on this machine.")
            named = model_name(self._name, self._model, self._digest(folder), str(folder))
        return self._open_in(folder, named)

    def _import(self) -> None:
        with extra(self._type, f"The model {self._model}"):
            import_module(self.library)

    @property
    def _repo(self) -> str:
        return self._model.partition("@")[0]

    @abstractmethod
    def _files(self) -> HubFiles:
        """Return the files of a model of the hub. Raise `ConfigError` for one that the library does not know."""

    @abstractmethod
    def _digest(self, folder: Path) -> str:
        """Return twelve digits that stand for all that a vector of the model in a folder depends on."""

    @abstractmethod
    def _open_in(self, folder: Path, named: str) -> LoadedEncoder:
        """Load the model of a folder, which its space calls `named`. Raise `ConfigError` for one that can not be run."""
