"""A comparison of plan and measurement as one HTML page with a picture."""

from __future__ import annotations

import html
import io
from pathlib import Path

from coordinator.check import Line, Verdict
from ragschema.userfile import write_user_text


def write_check_page(title: str, verdict: Verdict, path: Path) -> None:
    """Writes a page that needs nothing else.

    Raises:
        InvalidInput: the file cannot be written.
    """
    rows = "\n".join(_row(line, verdict.tolerance_pct) for line in verdict.lines)
    summed = (
        f"errors {verdict.median_abs_error_pct:.1f} % at the median,"
        f" {verdict.p90_abs_error_pct:.1f} % at nine of ten;"
        f" {verdict.kept} of {len(verdict.lines)} figures within the interval or"
        f" {verdict.tolerance_pct:g} %"
    )
    word = "The plan is kept" if verdict.passed else "The plan is not kept"
    text = (
        _PAGE.replace("@TITLE@", html.escape(title))
        .replace("@VERDICT@", f"{word}: {summed}")
        .replace("@PLOT@", _plot(verdict))
        .replace("@ROWS@", rows)
    )
    write_user_text(path, text, "report")


def _row(line: Line, tolerance_pct: float) -> str:
    between = f"{line.low:.4g} to {line.high:.4g}" if line.high > line.low else ""
    cells = (
        line.load, line.what, f"{line.predicted:.4g}", between, f"{line.measured:.4g}",
        f"{line.error_pct:+.1f}", line.definition,
    )  # fmt: skip
    kind = "" if line.kept(tolerance_pct) else ' class="off"'
    return f"<tr{kind}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


def _plot(verdict: Verdict) -> str:
    """Signed errors of all figures, as an SVG."""
    # Slow to import, and most checks are not drawn.
    from matplotlib.figure import Figure

    lines = verdict.lines[::-1]
    figure = Figure(figsize=(8, 1 + 0.25 * len(lines)), layout="constrained")
    axes = figure.subplots()
    errors = [max(-100.0, min(100.0, line.error_pct)) for line in lines]
    kept = [line.kept(verdict.tolerance_pct) for line in lines]
    axes.barh(range(len(lines)), errors, color=["#1f6feb" if k else "#cf222e" for k in kept])
    axes.set_yticks(range(len(lines)), [f"{line.load} {line.what}" for line in lines], fontsize=8)
    axes.axvspan(-verdict.tolerance_pct, verdict.tolerance_pct, color="#8b949e", alpha=0.2)
    axes.set_xlabel("measured over predicted, less 1, in % (cut at 100)")
    out = io.StringIO()
    figure.savefig(out, format="svg")
    return out.getvalue().partition("<svg")[1] + out.getvalue().partition("<svg")[2]


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>@TITLE@: plan and measurement</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse }
td, th { padding: .2rem .7rem; text-align: left; border-bottom: 1px solid #d0d7de }
.off td { background: #ffebe9 }
svg { max-width: 100% }
</style>
<h1>@TITLE@: plan and measurement</h1>
<p>@VERDICT@</p>
@PLOT@
<table>
<tr><th>load</th><th>what</th><th>predicted</th><th>interval</th><th>measured</th>
<th>error %</th><th>definition</th></tr>
@ROWS@
</table>
</html>
"""
