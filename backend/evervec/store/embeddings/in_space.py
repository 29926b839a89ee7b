"""A space as a number in the text of a statement: only then the planner finds the indexes of that space."""


def in_space(sql: str, space_id: int) -> str:
    """Return a statement with the number of a space in place of `{space}`."""
    return sql.replace("{space}", f"{space_id:d}")
