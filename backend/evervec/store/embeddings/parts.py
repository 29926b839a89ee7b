"""The part of `embeddings` that holds one space: named in SQL, it is read and written as a table of its own.

A condition on `space_id` would stay one for every row, and no index alone could answer.
"""


def part_of(space_id: int) -> str:
    """Return the name of the table with the records of a space."""
    return f"embeddings_{space_id:d}"


def of_space(sql: str, space_id: int) -> str:
    """Return a statement with the table of a space in place of `{part}`."""
    return sql.replace("{part}", part_of(space_id))
