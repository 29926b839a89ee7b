"""Stand-in."""


def demo() -> None:
    """Demo."""
