"""How close do our cost model and search come to the figures that RAGO prints?"""

from __future__ import annotations

from bench.common import emit, machine, options, typed_failures
from ragschema.planner.reproduce.figure import summary
from ragschema.planner.reproduce.rago import (
    case4_gains,
    headlines,
    query_scaling,
    table_4,
)


def main() -> None:
    """Prints every figure of the paper beside ours."""
    given = options(__doc__ or "").parse_args()
    with typed_failures():
        rows, ratios = table_4(), headlines()
        scaling = query_scaling()
        small = [f for f in rows if not (f.name.endswith("QPS/chip") and "min TTFT" in f.name)]
        emit(
            {
                "question": "how close are table 4 and the headline ratios of arXiv 2503.14649",
                "error": "distance from the values that print as the paper's, in per cent",
                "calibration": "ragschema/calibrations/rago.yaml",
                "table4": summary(rows),
                "table4_max_error_pct": round(max(f.error_pct for f in rows), 2),
                "table4_max_error_but_min_ttft_rate_pct": round(max(f.error_pct for f in small), 2),
                "headlines": summary(ratios),
                "headline_max_error_pct": round(max(f.error_pct for f in ratios), 2),
                "headline_max_raw_error_pct": round(max(abs(f.raw_error_pct) for f in ratios), 2),
                "case1_qps_per_chip_by_queries_1_2_4_8": {
                    model: [round(value, 3) for value in values]
                    for model, values in scaling.items()
                },
                "case4_gain_by_model": {m: round(g, 3) for m, g in case4_gains().items()},
                "machine": machine(),
            },
            given,
        )


if __name__ == "__main__":
    main()
