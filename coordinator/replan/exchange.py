"""How the coordinator asks the supervisor for other processes, and both agree on the end of it.

Three small files below the run directory, each replaced in one step by its one writer: what is
asked for, how far the supervisor is, and whether the coordinator went over to the new nodes.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from coordinator.supervisor.rundir import write_atomically

_STRICT = ConfigDict(extra="forbid", strict=True)
_POLL_S: Final = 0.1
_Text = Annotated[str, Field(max_length=4000)]


@dataclass(frozen=True)
class Asked:
    """A plan whose processes are to run in place of those that do.

    Attributes:
        deployed: the plan whose batches are in use, and stay so if that fails.
    """

    __pydantic_config__ = _STRICT
    id: _Text
    plan: _Text
    deployed: _Text


@dataclass(frozen=True)
class Answered:
    """How far the supervisor is.

    Attributes:
        state: ``starting``, ``up`` with both the old and the new processes running,
            ``refused``, or ``done`` with the new ones alone.
        why: it was refused.
        nodes: names of the LLM nodes that the coordinator is to use.
    """

    __pydantic_config__ = _STRICT
    id: _Text
    state: Literal["starting", "up", "refused", "done"]
    why: _Text = ""
    nodes: tuple[_Text, ...] = ()


@dataclass(frozen=True)
class Settled:
    """What the coordinator uses.

    Attributes:
        ok: the new nodes, and nothing is under way at the old ones.
        back: where it is not, the old ones, and nothing is under way at the new ones.
    """

    __pydantic_config__ = _STRICT
    id: _Text
    ok: bool
    back: bool = False


_M = TypeVar("_M", Asked, Answered, Settled)


class Exchange:
    """The files of one rig."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ask(self, plan: Path, deployed: Path) -> str:
        """Asks for a plan's processes; the id of the question."""
        asked = Asked(secrets.token_hex(8), str(plan), str(deployed))
        self._write("asked", asked)
        return asked.id

    def answer(self, answered: Answered) -> None:
        """The supervisor's side."""
        self._write("answered", answered)

    def settle(self, settled: Settled) -> None:
        """The coordinator's last word."""
        self._write("settled", settled)

    def asked(self) -> Asked | None:
        """The last question; None: there is none that can be read."""
        return self._read("asked", Asked)

    def answered(self, wanted: str) -> Answered | None:
        """How far a question is."""
        found = self._read("answered", Answered)
        return found if found is not None and found.id == wanted else None

    def settled(self, wanted: str) -> Settled | None:
        """What became of a question at the coordinator."""
        found = self._read("settled", Settled)
        return found if found is not None and found.id == wanted else None

    async def until(self, wanted: str, states: frozenset[str], timeout_s: float) -> Answered | None:
        """The answer once it is one of the states; None: it was not in time."""
        give_up_s = time.monotonic() + timeout_s
        while time.monotonic() < give_up_s:
            found = await asyncio.to_thread(self.answered, wanted)
            if found is not None and found.state in states:
                return found
            await asyncio.sleep(_POLL_S)
        return None

    def _write(self, name: str, message: Asked | Answered | Settled) -> None:
        write_atomically(self._folder / f"{name}.json", json.dumps(asdict(message)))

    def _read(self, name: str, kind: type[_M]) -> _M | None:
        try:
            text = (self._folder / f"{name}.json").read_text(encoding="utf-8")
            return TypeAdapter(kind).validate_json(text)
        except (OSError, ValidationError):
            return None
