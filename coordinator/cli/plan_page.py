"""A frontier as one HTML page: hover over a point to read its schedule, click to keep it."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ragschema.userfile import write_user_text

#: Columns that are offered as axes, where every row has them.
_AXES = ("ttft_s", "qps_per_chip", "tpot_s", "cost_per_1000", "energy_j", "qps", "chips")


def write_page(
    title: str, rows: Sequence[Mapping[str, Any]], definitions: Mapping[str, str], path: Path
) -> None:
    """Writes a page that needs nothing else: no script or style from elsewhere.

    Args:
        rows: of the frontier, as ``frontier_rows`` gives them.

    Raises:
        InvalidInput: the file cannot be written.
    """
    data = {
        "rows": [dict(row) for row in rows],
        "axes": [a for a in _AXES if all(row.get(a) is not None for row in rows)],
        "definitions": dict(definitions),
    }
    # "</" would end the script early.
    text = _PAGE.replace("@TITLE@", html.escape(title)).replace(
        "@DATA@", json.dumps(data).replace("</", "<\\/")
    )
    write_user_text(path, text, "plot")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>@TITLE@</title>
<style>
body { font: 14px system-ui, sans-serif; color: #30363d; margin: 2em; max-width: 900px }
svg { border: 1px solid #d0d7de; width: 100% } circle { fill: #1f6feb; cursor: pointer }
circle.kept { fill: #d1242f } text { font-size: 11px; fill: #57606a }
td, th { text-align: left; padding: 1px 12px 1px 0 } select { margin-right: 1em }
</style></head><body>
<h1>@TITLE@</h1>
<p>across <select id="x"></select> up <select id="y"></select>
<label><input type="checkbox" id="log"> logarithmic</label></p>
<svg id="plot" viewBox="0 0 900 420"></svg>
<table id="detail"></table><dl id="definitions"></dl>
<script>
const data = @DATA@;
const plot = document.getElementById("plot"), detail = document.getElementById("detail");
const pick = {x: document.getElementById("x"), y: document.getElementById("y")};
const log = document.getElementById("log");
let kept = null;
for (const axis of ["x", "y"]) for (const name of data.axes) pick[axis].add(new Option(name, name));
pick.y.selectedIndex = Math.min(1, data.axes.length - 1);
for (const [name, text] of Object.entries(data.definitions)) {
  const dt = document.createElement("dt"), dd = document.createElement("dd");
  dt.textContent = name; dd.textContent = text;
  document.getElementById("definitions").append(dt, dd);
}
function element(name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  plot.append(node);
  return node;
}
function scale(name, from, to) {
  const f = log.checked ? Math.log : v => v;
  const values = data.rows.map(row => f(row[name]));
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  return value => from + (f(value) - low) / span * (to - from);
}
function show(row) {
  detail.replaceChildren();
  for (const [key, value] of Object.entries(row)) {
    const line = detail.insertRow();
    line.insertCell().textContent = key;
    line.insertCell().textContent = typeof value === "number" ? +value.toPrecision(5) : value;
  }
}
function draw() {
  plot.replaceChildren();
  const x = scale(pick.x.value, 70, 860), y = scale(pick.y.value, 370, 30);
  element("text", {x: 400, y: 410}, pick.x.value);
  element("text", {x: 8, y: 18}, pick.y.value);
  for (const row of data.rows) {
    const at = {cx: x(row[pick.x.value]), cy: y(row[pick.y.value]), r: 6};
    const point = element("circle", at);
    if (row === kept) point.classList.add("kept");
    point.addEventListener("mouseenter", () => show(row));
    point.addEventListener("mouseleave", () => kept && show(kept));
    point.addEventListener("click", () => { kept = row; show(row); draw(); });
  }
  for (const row of [data.rows[0], data.rows[data.rows.length - 1]]) {
    element("text", {x: x(row[pick.x.value]) - 20, y: 388}, +row[pick.x.value].toPrecision(3));
    element("text", {x: 20, y: y(row[pick.y.value]) + 4}, +row[pick.y.value].toPrecision(3));
  }
}
for (const input of [pick.x, pick.y, log]) input.addEventListener("change", draw);
draw();
show(data.rows[0]);
</script></body></html>
"""
