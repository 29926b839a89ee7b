"""How a text of a format is structured: where its blocks begin and what they are headed; nothing is read or cut here."""

from evervec.sources.structure.outline import blocks, title

__all__ = ["blocks", "title"]
