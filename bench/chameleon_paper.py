"""How close do our throughput and scaling models come to the figures that Chameleon prints?"""

from __future__ import annotations

from bench.common import emit, machine, options, typed_failures
from ragschema.planner.reproduce.chameleon import growth, share_error_points, shares
from ragschema.planner.reproduce.figure import summary


def main() -> None:
    """Prints every figure of the paper beside ours."""
    given = options(__doc__ or "").parse_args()
    with typed_failures():
        scaling = growth()
        emit(
            {
                "question": "accelerator shares and scaling of arXiv 2310.09949, section 6",
                "inputs": "ragschema/planner/reproduce/chameleon.yaml",
                "assumption": "nodes are independent, each like one of 100 published"
                " measurements drawn at random",
                "shares": summary(shares()),
                "ratio_max_error_points": round(share_error_points(), 2),
                "scaling": summary(scaling),
                "scaling_max_error_pct": round(max(abs(f.raw_error_pct) for f in scaling), 2),
                "machine": machine(),
            },
            given,
        )


if __name__ == "__main__":
    main()
