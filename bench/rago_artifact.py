"""Does our search find the frontiers that the public RAGO artifact finds on its own tables?"""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import emit, machine, options, typed_failures
from ragschema.errors import InvalidInput
from ragschema.planner.schedule import Frontier
from ragschema.planner.search import search
from ragschema.planner.stage_tables import problem_from_tables, read_limits


def main() -> None:
    """Compares every run below a folder that has tables, limits and a frontier."""
    parser = options(__doc__ or "")
    parser.add_argument("folder", type=Path, metavar="DIR", help="holds one folder per run")
    given = parser.parse_args()
    with typed_failures():
        runs = {run.name: compare(run) for run in runs_below(given.folder)}
        compared = [run for run in runs.values() if run["identical"] is not None]
        emit(
            {
                "question": "are the frontiers of TTFT and QPS per chip equal to 1e-9",
                "frontiers_identical": bool(compared) and all(r["identical"] for r in compared),
                "runs_compared": len(compared),
                "runs": runs,
                "machine": machine(),
            },
            given,
        )


def runs_below(folder: Path) -> list[Path]:
    """Folders with stage tables and limits.

    Raises:
        InvalidInput: there is none.
    """
    found = sorted(path.parent for path in folder.glob("*/stage_latency_tables.csv"))
    if not found:
        raise InvalidInput(
            f"{folder} has no folder with a stage_latency_tables.csv",
            field="DIR",
            hint="name the folder that holds the runs",
        )
    return found


def compare(run: Path) -> dict[str, Any]:
    """One run; ``identical`` is None where it has no frontier of its own."""
    started_s = time.perf_counter()
    limits = read_limits(run / "inputs.json")
    frontier = search(problem_from_tables(run / "stage_latency_tables.csv", limits))
    took_s = time.perf_counter() - started_s
    wanted = run / "frontier.csv"
    return {
        "points": len(frontier.points),
        "search_s": round(took_s, 3),
        "identical": identical(frontier, published(wanted)) if wanted.is_file() else None,
    }


def published(path: Path) -> list[tuple[float, float]]:
    """Different points (TTFT s, QPS per chip) of a frontier file, by TTFT."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return sorted({(float(r["latency_s_ttft"]), float(r["qps_per_chip"])) for r in rows})


def identical(frontier: Frontier, wanted: list[tuple[float, float]]) -> bool:
    """Equal within 1e-9, relative."""
    found = [(s.ttft_s, s.qps_per_chip) for s in frontier.points]
    return len(found) == len(wanted) and bool(
        np.allclose(np.array(found), np.array(wanted), rtol=1e-9, atol=0)
    )


if __name__ == "__main__":
    main()
