"""Names that people give to projects, datasets and providers, and the slugs made of them."""

import re

from evervec.errors import InvalidNameError


def slug(what: str, name: str) -> str:
    """Return the slug of a name: `'River Log'` becomes `river-log`; letters of every script stay. Raises `InvalidNameError`."""
    made = re.sub(r"[^\w.]+", "-", name.strip().lower()).strip("-.")
    if not 1 <= max(len(name), len(made)) <= 100 or not name.isprintable() or not any(c.isalnum() for c in made):
        raise InvalidNameError(what=what, name=name)
    return made
