"""What every embedder tells of itself: its provider's name, its model, and how much it takes."""

from evervec.domain.protocols import EmbedLimits


class NamedEmbedder:
    """An embedder with a name, a model and limits, which may become known only by `probe`."""

    def __init__(self, name: str, model: str, limits: EmbedLimits) -> None:
        self._name, self._model, self._limits = name, model, limits

    @property
    def name(self) -> str:
        """Return the provider's name, for messages."""
        return self._name

    @property
    def model(self) -> str:
        """Return the model's name; that of a folder or of the hub has its digest after `probe`."""
        return self._model

    @property
    def limits(self) -> EmbedLimits:
        """Return the limits of a request; a `text_tokens` that the model tells is known after `probe`."""
        return self._limits
