"""Reads descriptions from YAML, JSON and Python; an error names the file, the table and the field."""

import os
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from evervec.errors import SourceError
from evervec.sources.sql.description import SourceDescription, TableDescription

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_KNOWN: Final = {"tables": ", ".join(TableDescription.model_fields), "": ", ".join(SourceDescription.model_fields)}


def load(path: Path, environ: Mapping[str, str]) -> SourceDescription:
    """Read the description in a YAML file; `${NAME}` in its url is taken from `environ`. Raises `SourceError`."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SourceError(where=path, reason=f"the file can not be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise SourceError(where=path, reason=f"the file is not UTF-8 ({error.reason} at byte {error.start}).") from None
    return parse(text, os.fspath(path), environ)


def parse(text: str, where: str, environ: Mapping[str, str]) -> SourceDescription:
    """Read the description in a YAML text; `where` is its name in errors. Raises `SourceError`."""
    try:
        found = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise SourceError(where=where, reason=f"{line}{error.problem or error.context}.") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SourceError(where=where, reason=f"this is not YAML ({_first_line(error)}).") from None
    if not isinstance(found, dict):
        raise SourceError(where=where, reason="this describes no source: give name, project, dataset and tables.")
    if isinstance(found.get("url"), str):
        found["url"] = expanded(found["url"], f"{where}: field 'url'", environ)
    return describe(found, where)


def describe(fields: Mapping[str, Any], where: str) -> SourceDescription:
    """Make a description of plain values, as they are in YAML or in a dump. Raises `SourceError`."""
    try:
        return SourceDescription.model_validate(dict(fields))
    except ValidationError as error:
        reason = "; ".join(_sentence(dict(one)) for one in error.errors(include_url=False))
        raise SourceError(where=where, reason=f"{reason}.") from None


def expanded(url: str, where: str, environ: Mapping[str, str]) -> str:
    """Return an address with every `${NAME}` in it taken from `environ`. Raises `SourceError`."""

    def value(match: re.Match[str]) -> str:
        if not environ.get(match[1]):
            raise SourceError(where=where, reason=f"the environment has no {match[1]}. Set it.")
        return environ[match[1]]

    return _VARIABLE.sub(value, url)


def _sentence(error: dict[str, Any]) -> str:
    """Describe one mistake: where it is, and what is wrong."""
    place = list(error["loc"])
    known = _KNOWN["tables" if len(place) == 3 else ""]
    named = [f"table {place.pop(1)!r}"] if len(place) > 1 else []
    named += [f"field {place[-1]!r}"] if place and not (named and len(place) == 1) else []
    match error["type"]:
        case "extra_forbidden":
            return f"{', '.join(named)} is unknown; known are {known}"
        case "missing":
            return f"{', '.join(named)} is missing"
        case "string_type":
            return f"{', '.join(named)} must be text; put it in quotes"
        case "value_error":
            return ": ".join(filter(None, [", ".join(named), str(error["ctx"]["error"])]))
    return f"{', '.join(named)}: {error['msg']}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


class _Loader(yaml.SafeLoader):
    """A loader of safe YAML in which a repeated key is an error: the second value would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set[str]()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)
