"""What a strict reader says of an answer that has not the promised form."""

from pydantic import ValidationError


def first_reason(problem: ValidationError) -> str:
    """The first thing wrong, with its place, and never the answer itself."""
    error = problem.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in error["loc"])
    return f"{error['msg']}{f' at {place}' if place else ''}"
