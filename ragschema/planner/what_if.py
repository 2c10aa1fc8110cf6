"""Plans for a workload or pool with one thing changed: load, lengths, hit rate, prices, counts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ragschema.errors import InvalidInput
from ragschema.plainyaml import load_plain_yaml
from ragschema.planner.infeasible import Infeasible
from ragschema.planner.plan import Plan
from ragschema.pool import Pool, parse_pool
from ragschema.userfile import nearest
from ragschema.workload import RagSchema, parse_schema

_POOL = "pool."


@dataclass(frozen=True)
class Vary:
    """One key and the values it is given, as text that YAML reads.

    Attributes:
        key: a path in the schema, such as ``lengths.prompt``, or in the pool file with
            ``pool.`` before it; a device's name stands for its place in a list.
    """

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The plan for one value of one key; key None: nothing was changed."""

    key: str | None
    value: str
    plan: Plan | Infeasible


def parse_vary(text: str) -> Vary:
    """``key=a,b,c``.

    Raises:
        InvalidInput: it is not of that form.
    """
    key, equals, values = text.partition("=")
    given = tuple(value.strip() for value in values.split(",") if value.strip())
    if not equals or not key.strip() or not given:
        raise InvalidInput(
            f"{text!r} does not say what to vary",
            field="vary",
            hint="write it as lengths.prompt=512,1024 or pool.accelerators.l4.price_per_h=0.5,1",
        )
    return Vary(key.strip(), given)


def what_if(
    schema_text: str,
    pool_text: str,
    varied: Sequence[Vary],
    make: Callable[[RagSchema, Pool], Plan | Infeasible],
) -> list[Outcome]:
    """Plans with one key changed at a time, after the one with none changed.

    Raises:
        InvalidInput: a key is not there, or a value is not allowed; names key and value.
    """
    texts = schema_text, pool_text
    found = [
        Outcome(None, "", make(parse_schema(texts[0], "schema"), parse_pool(texts[1], "pool")))
    ]
    for vary in varied:
        for value in vary.values:
            schema, pool = _changed(*texts, vary.key, value)
            found.append(Outcome(vary.key, value, make(schema, pool)))
    return found


def _changed(schema_text: str, pool_text: str, key: str, value: str) -> tuple[RagSchema, Pool]:
    source = f"{key}={value}"
    if key.startswith(_POOL):
        pool_text = _set(pool_text, "pool", key.removeprefix(_POOL), value)
    else:
        schema_text = _set(schema_text, "schema", key, value)
    return parse_schema(schema_text, source), parse_pool(pool_text, source)


def _set(text: str, source: str, path: str, value: str) -> str:
    """The YAML text with one key set; parts of the path that are missing are made."""
    raw = copy.deepcopy(load_plain_yaml(text, source))
    *parents, last = path.split(".")
    here: Any = raw
    for part in parents:
        here = _step(here, part, path)
    if isinstance(here, list) or not isinstance(here, dict):
        raise InvalidInput(f"{path!r} is no key of the {source}", field="vary")
    here[last] = _scalar(value, path)
    return yaml.safe_dump(raw, sort_keys=False)


def _scalar(value: str, path: str) -> Any:
    read = load_plain_yaml(value, path)
    if isinstance(read, str):
        try:
            return float(read)  # YAML takes 1e9 for text
        except ValueError:
            return read
    return read


def _step(here: Any, part: str, path: str) -> Any:
    if isinstance(here, dict):
        return here.setdefault(part, {})
    if isinstance(here, list):
        names = [str(item.get("device")) for item in here if isinstance(item, dict)]
        if part in names:
            return here[names.index(part)]
        if part.isdecimal() and int(part) < len(here):
            return here[int(part)]
        raise InvalidInput(
            f"{path!r}: the list has no {part!r}", field="vary", hint=nearest(part, names)
        )
    raise InvalidInput(f"{path!r}: there is nothing below a value", field="vary")
