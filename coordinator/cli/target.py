"""Which rig a command means: its file, its data directory, its URL, its key."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from coordinator.supervisor.resolve import anchor_paths
from coordinator.supervisor.rundir import RigState, RunDir
from ragschema.errors import InvalidInput, NotFound, RagrigError, Unavailable
from ragschema.rig import RigConfig, load_rig, parse_rig

URL_VARIABLE = "RAGRIG_URL"
KEY_VARIABLE = "RAGRIG_API_KEY_FILE"
START_HINT = "start one with `ragrig up`"


@dataclass(frozen=True)
class Target:
    """A coordinator to talk to."""

    url: str
    api_key: str | None = None


def rig_of(config: Path | None, data_dir: Path | None) -> RigConfig:
    """The rig file's rig, or the default one, with absolute paths.

    Raises:
        RagrigError: the file is missing or wrong.
    """
    if config is None:
        rig = parse_rig("", "the default rig", Path.cwd())
    else:
        rig = anchor_paths(load_rig(config), config.resolve().parent)
    if data_dir is not None:
        rig = replace(rig, data_dir=str(data_dir.expanduser().resolve()))
    return rig


@dataclass(frozen=True)
class RunningRig:
    """A rig that runs on this machine, as its supervisor described it."""

    state: RigState
    rig: RigConfig


def running_rig(data_dir: str) -> RunningRig | None:
    """The rig that runs on this data directory; None when none does."""
    run = RunDir.of(data_dir)
    state = run.read_state()
    if state is None:
        return None
    try:
        return RunningRig(state, load_rig(run.resolved_rig))
    except RagrigError:
        return None


def find_target(
    url: str | None, config: Path | None, data_dir: Path | None, api_key_file: Path | None
) -> Target:
    """``--url``, else RAGRIG_URL, else the rig that runs on the data directory.

    Raises:
        Unavailable: nothing runs there.
        InvalidInput: not an http URL, or the key file cannot be used.
    """
    key_file = api_key_file or _path_variable(KEY_VARIABLE)
    given = url or os.environ.get(URL_VARIABLE)
    if given:
        return Target(_checked_url(given), _read_key(key_file))
    rig = rig_of(config, data_dir)
    found = running_rig(rig.data_dir)
    if found is None:
        raise Unavailable(f"no rig is running on {rig.data_dir}", hint=START_HINT)
    return target_of(found, key_file)


def target_of(found: RunningRig, key_file: Path | None = None) -> Target:
    """The coordinator of a rig that runs here."""
    own = found.rig.coordinator.api_key_file
    return Target(found.state.url, _read_key(key_file or (Path(own) if own else None)))


def _path_variable(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value) if value else None


def _checked_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise InvalidInput(
            f"{url!r} is not an http URL", field="url", hint="such as http://127.0.0.1:8080"
        )
    return url.rstrip("/")


def _read_key(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.expanduser().read_text(encoding="ascii").strip()
    except FileNotFoundError as error:
        raise NotFound(f"there is no API key file {path}", field="api_key_file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {error}", field="api_key_file") from error
