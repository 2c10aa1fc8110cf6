"""``<data_dir>/run``: who runs a rig here, where its nodes listen, what they logged."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from ragschema.errors import Conflict, InvalidInput

_LOCK_TRIES = 5
_LOCK_PAUSE_S = 0.05


@dataclass(frozen=True)
class NodeRecord:
    """One process of a running rig; ``pid`` is None for a node started elsewhere."""

    name: str
    kind: str
    address: str
    pid: int | None


@dataclass(frozen=True)
class RigState:
    """What ``state.json`` says about a running rig.

    Attributes:
        pid: the supervisor.
        coordinator: host:port of the REST server.
    """

    pid: int
    coordinator: str
    nodes: tuple[NodeRecord, ...]

    @property
    def url(self) -> str:
        return f"http://{self.coordinator}"


@dataclass(frozen=True)
class RunDir:
    """Paths of one rig's run files.

    Attributes:
        data: the rig's data directory where this one does not lie right in it.
    """

    path: Path
    data: Path | None = None

    @staticmethod
    def of(data_dir: str | Path) -> RunDir:
        return RunDir(Path(data_dir) / "run")

    @property
    def data_dir(self) -> Path:
        """The rig's, with its collections."""
        return self.path.parent if self.data is None else self.data

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    @property
    def resolved_rig(self) -> Path:
        return self.path / "rig.resolved.yaml"

    @property
    def state_file(self) -> Path:
        return self.path / "state.json"

    @property
    def replan_file(self) -> Path:
        """Settings of live re-planning, for the coordinator."""
        return self.path / "replan.json"

    @property
    def replan_dir(self) -> Path:
        """Plans that were made while the rig ran, and what is agreed on about them."""
        return self.path / "replan"

    @property
    def log_dir(self) -> Path:
        return self.path / "logs"

    def ready_file(self, node: str) -> Path:
        return self.path / f"{node}.ready"

    def log_file(self, node: str) -> Path:
        return self.log_dir / f"{node}.log"

    def create(self) -> None:
        """Makes the folders.

        Raises:
            InvalidInput: the data directory cannot be written.
        """
        try:
            self.log_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(
                f"cannot write {self.path}: {error.strerror}",
                field="data_dir",
                hint="choose another folder with --data-dir",
            ) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run directory for one supervisor.

        Raises:
            Conflict: another supervisor has it, naming its process.
        """
        with self.lock_file.open("a+", encoding="utf-8") as handle:
            self._take(handle)
            handle.seek(0)
            handle.truncate()
            json.dump({"pid": os.getpid()}, handle)
            handle.flush()
            yield

    def _take(self, handle: IO[str]) -> None:
        """Tries a few times: a reader that probes the lock holds it for an instant."""
        for attempt in range(_LOCK_TRIES):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if attempt == _LOCK_TRIES - 1:
                    raise self._held_error(handle) from error
                time.sleep(_LOCK_PAUSE_S)
            else:
                return

    def _held_error(self, handle: IO[str]) -> Conflict:
        handle.seek(0)
        try:
            holder = f"process {json.load(handle)['pid']}"
        except (ValueError, KeyError, TypeError):
            holder = "another process"
        return Conflict(
            f"a rig already runs on {self.path.parent}, held by {holder}",
            field="data_dir",
            hint="stop it with Ctrl-C or SIGTERM, or give this rig another --data-dir",
        )

    def is_held(self) -> bool:
        """Whether a supervisor runs here at this moment."""
        try:
            with self.lock_file.open("r", encoding="utf-8") as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def write_state(self, state: RigState) -> None:
        """Replaces ``state.json`` atomically."""
        write_atomically(self.state_file, json.dumps(asdict(state), indent=1))

    def read_state(self) -> RigState | None:
        """The rig that runs here; None when none does, whatever files were left."""
        if not self.is_held():
            return None
        try:
            state = _state_of(json.loads(self.state_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        # A killed supervisor's state outlives it until the next one, which
        # may hold the lock by now, has removed it.
        return state if _is_alive(state.pid) else None

    def clear_replan(self) -> None:
        """Makes the folder, and forgets what an earlier rig asked and planned."""
        self.replan_dir.mkdir(exist_ok=True)
        for path in self.replan_dir.iterdir():
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes what says that a rig runs; logs and the resolved rig stay."""
        for path in (self.state_file, *self.path.glob("*.ready")):
            path.unlink(missing_ok=True)


def _state_of(raw: dict[str, Any]) -> RigState:
    nodes = tuple(
        NodeRecord(n["name"], n["kind"], n["address"], n.get("pid")) for n in raw["nodes"]
    )
    return RigState(pid=int(raw["pid"]), coordinator=str(raw["coordinator"]), nodes=nodes)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old text or the new, never a part."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
