"""Read the body of a request: only as far as it may be long, and refused in the words of all other errors."""

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from evervec.errors import Refused

Body = TypeVar("Body", bound=BaseModel)


async def read(request: Request, model: type[Body], *, most_bytes: int, advice: str, example: object) -> Body | None:
    """Return the body as a model, None for an empty one. Raises `Refused` for one that is too long or invalid."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most_bytes:
            raise Refused(reason=f"The body has more than {most_bytes >> 20} MB. {advice}")
    if not body.strip():
        return None
    try:
        return model.model_validate_json(bytes(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "The body"
        raise Refused(reason=f"{place[:200]}: {first['msg']}. Send JSON like {example}.") from None
