"""What ``ragrig profile`` does: measures behind a progress bar, merges, writes, prints."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from coordinator.cli.console import printable, stderr, stdout
from coordinator.cli.target import rig_of
from coordinator.profile.collection import Vectors
from coordinator.profile.measure import Step
from coordinator.profile.plan import ROLES, scope_of
from coordinator.profile.run import Outcome, Watcher, profile_rig
from ragschema.errors import InvalidInput, NotFound
from ragschema.here import this_machine, this_software, usable_cores
from ragschema.profile import (
    Profile,
    merged,
    read_profile,
    require_machine,
    stale,
    write_profile,
)
from ragschema.userfile import nearest

_VECTORS = 100_000
_QUICK_VECTORS = 40_000
_BUSY = 0.5


@dataclass(frozen=True)
class ProfileChoices:
    """Options of one call, as they were typed."""

    config: Path | None
    out: Path
    quick: bool
    roles: str | None
    fresh: bool
    vectors: int | None
    dim: int
    threads: str | None
    json: bool


def run_profile(choices: ProfileChoices) -> None:
    """Measures and writes.

    Raises:
        IncompatibleRequest: the file is another machine's, and not to be replaced.
        RagrigError: of the options, the file, or the rig.
    """
    roles = _roles(choices.roles)
    vectors, threads = _vectors(choices), _thread_counts(choices.threads)
    old = None if choices.fresh else _existing(choices.out)
    rig = None if choices.config is None else rig_of(choices.config, None)
    scope = scope_of(rig, roles, choices.quick, vectors, threads)
    bar = _Bar()
    with bar.progress:
        outcome = asyncio.run(profile_rig(scope, bar.watcher))
    profile = outcome.profile if old is None else merged(old, outcome.profile)
    write_profile(profile, choices.out)
    if choices.json:
        print(json.dumps(asdict(profile), indent=1))
        return
    console = stdout()
    for part in _shown(profile, outcome, choices.out):
        console.print(part)


def _roles(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ROLES
    named = tuple(part.strip() for part in text.split(","))
    for name in named:
        if name not in ROLES:
            raise InvalidInput(f"{name!r} is no role", field="roles", hint=nearest(name, ROLES))
    return named


def _thread_counts(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    most = usable_cores()
    counts = []
    for part in text.split(","):
        if not part.strip().isdecimal() or not 1 <= int(part) <= most:
            raise InvalidInput(
                f"--threads {text!r}: {part.strip()!r} is no number from 1 to {most}",
                field="threads",
                hint=f"this machine has {most} cores",
            )
        counts.append(int(part))
    return tuple(dict.fromkeys(counts))


def _vectors(choices: ProfileChoices) -> Vectors:
    """An index of the usual proportions: lists by the root of the rows, 8 dimensions a byte."""
    count = choices.vectors or (_QUICK_VECTORS if choices.quick else _VECTORS)
    if choices.dim % 8:
        raise InvalidInput(f"--dim {choices.dim} is no multiple of 8", field="dim")
    lists = 1 << max(4, round(count**0.5).bit_length() - 1)
    return Vectors(count, choices.dim, lists, choices.dim // 8)


def _existing(path: Path) -> Profile | None:
    """The profile to merge with; None when there is none yet."""
    try:
        found = read_profile(path)
    except NotFound:
        return None
    try:
        require_machine(found, this_machine())
    except InvalidInput as error:
        error.hint = "name another file with --out, or replace it with --fresh"
        raise
    return found


class _Bar:
    """A bar that knows what is measured and how long it will take."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=stderr(),
            transient=True,
        )
        self._task = self.progress.add_task("", total=None, left="")
        self.watcher = Watcher(self._phase, self._step)

    def _phase(self, name: str) -> None:
        self.progress.update(self._task, description=name)

    def _step(self, step: Step) -> None:
        left = "" if step.left_s is None else f"about {step.left_s:.0f} s left"
        name = step.probe[:28]
        self.progress.update(
            self._task, description=name, completed=step.done, total=step.total, left=left
        )


def _threads(count: int) -> str:
    return "" if count == 1 else f", {count} threads"


def _shown(profile: Profile, outcome: Outcome, path: Path) -> list[RenderableType]:
    table = Table(title=f"{profile.machine.cpu}, {profile.machine.cores} cores")
    table.add_column("role", no_wrap=True)
    for column in ("points", "repeats", "spread", "off by", "within"):
        table.add_column(column, justify="right")
    for role in profile.roles:
        spread = sorted(sample.dispersion for sample in role.samples)[len(role.samples) // 2]
        table.add_row(
            printable(f"{role.role} {role.variant}" + _threads(role.threads)),
            str(len(role.samples)),
            str(sum(len(sample.seconds) for sample in role.samples)),
            f"{spread:.0%}",
            f"{role.fit.median_abs_error_pct:.1f} %",
            f"± {role.fit.width:.0%}",
        )
    lines = [
        "spread: half of a point's repeats lie within this much of each other, for a usual point",
        "off by: what the sum of terms misses at a usual point",
        "within: so near a prediction nine of ten further points are expected",
    ]
    lines += [f"not measured: {name}: {why}" for name, why in profile.missing.items()]
    if outcome.skipped:
        lines.append(f"the time limit left out {outcome.skipped} points")
    old = stale(profile, this_software())
    lines += [f"{name} is of other software: {', '.join(what)}" for name, what in old.items()]
    load = max((role.load_before for role in outcome.profile.roles), default=0.0)
    if load > _BUSY * profile.machine.cores:
        lines.append(f"the machine was busy before it began: load {load:.1f}")
    lines.append(f"wrote {path}")
    return [table, *(printable(line) for line in lines)]
