"""The structure of a text by its format: where its blocks begin and their headings. Nothing is read or cut here.

Read `outline` first: it picks the format's module (`markdown`, `rst`, `plain_text`, `definitions` for source code).
"""

from evervec.sources.structure.outline import blocks, title

__all__ = ["blocks", "title"]
