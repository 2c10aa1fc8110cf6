"""``--filter`` conditions into the filters of a REST request."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import typer

_CONDITION = re.compile(r"^(?P<key>[^=!<>]+?)\s*(?P<op>!=|>=|<=|=|>|<)\s*(?P<value>.*)$", re.S)
_OPS = {"!=": "ne", ">=": "gte", "<=": "lte", ">": "gt", "<": "lt"}


def parse_filters(conditions: Sequence[str]) -> dict[str, Any]:
    """The ``filters`` object of a request.

    Values that read as a JSON number, true or false are sent as such; write
    ``key="7"`` for the text 7.

    Raises:
        typer.BadParameter: a condition has no operator, or mixes ``=`` with bounds.
    """
    filters: dict[str, Any] = {}
    for text in conditions:
        found = _CONDITION.match(text)
        if found is None:
            raise typer.BadParameter(f"{text!r}: write key=value", param_hint="--filter")
        _add(filters, found["key"].strip(), found["op"], _scalar(found["value"]))
    return {key: v[0] if isinstance(v, list) and len(v) == 1 else v for key, v in filters.items()}


def _add(filters: dict[str, Any], key: str, op: str, value: str | float | bool) -> None:
    wanted = filters.setdefault(key, [] if op == "=" else {})
    if (op == "=") != isinstance(wanted, list):
        raise typer.BadParameter(f"{key} has both = and another condition", param_hint="--filter")
    if isinstance(wanted, list):
        wanted.append(value)
    else:
        wanted[_OPS[op]] = value


def _scalar(text: str) -> str | float | bool:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (str, int, float, bool)) else text
