"""The check that a task's arguments fit its function; TaskIQ itself only logs a misfit and runs the task anyway."""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from taskiq import TaskiqMessage
from taskiq.compat import parse_obj_as
from taskiq_dependencies.dependency import Dependency


def argument_problem(function: Callable[..., Any], message: TaskiqMessage) -> str | None:
    """Return why `function` can not take the arguments of `message`, or None.

    Values are checked the way TaskIQ converts them.
    """
    signature = inspect.signature(function)
    hints = get_type_hints(function, include_extras=True)
    wanted = [p for p in signature.parameters.values() if not _injected(p, hints.get(p.name))]
    try:
        bound = signature.replace(parameters=wanted).bind(*message.args, **message.kwargs)
    except TypeError as error:
        return f"arguments do not fit: {error}"
    for name, value in bound.arguments.items():
        if reason := _misfit(signature.parameters[name], hints.get(name), value):
            return reason
    return None


def _injected(parameter: inspect.Parameter, hint: Any) -> bool:
    marks = (parameter.default, *getattr(hint, "__metadata__", ()))
    return any(isinstance(mark, Dependency) for mark in marks)


def _misfit(parameter: inspect.Parameter, hint: Any, value: Any) -> str | None:
    if hint is None or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return None
    try:
        parse_obj_as(hint, value)
    except ValueError as error:
        return f"argument {parameter.name} does not fit: {error}"
    except (RuntimeError, TypeError):
        # A type that pydantic has no schema for, or can not remember: nothing can be said about the value.
        return None
    return None
