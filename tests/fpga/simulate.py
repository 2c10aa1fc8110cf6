"""Builds and runs one cocotb bench; its results file says whether the bench passed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RTL, TB = ROOT / "fpga" / "rtl", ROOT / "fpga" / "tb"
BUILD = ROOT / "build" / "fpga"
SEED = 20261127
#: Commands, and the Debian packages of the same names.
_PACKAGES = {"verilator": "verilator", "icarus": "iverilog"}
_TIMEOUT_S = 400

# cocotb's runner warns that it may change, and exits 0 when a test fails: it runs in a
# process of its own, and the results file is read.
_RUN = """
import json, sys, warnings
warnings.simplefilter("ignore")
from cocotb.runner import get_runner
job = json.loads(sys.argv[1])
runner = get_runner(job["simulator"])
runner.build(verilog_sources=job["sources"], hdl_toplevel=job["top"], parameters=job["parameters"],
             build_dir=job["build_dir"], build_args=job["build_args"], timescale=("1ns", "1ps"))
runner.test(test_module=job["module"], hdl_toplevel=job["top"], build_dir=job["build_dir"],
            test_dir=job["build_dir"], results_xml=job["results"], seed=job["seed"],
            extra_env={"BENCH": json.dumps(job["parameters"])})
"""


def need(simulator: str) -> None:
    """Skips the test where a simulator is not installed, and says what to install."""
    pytest.importorskip("cocotb", reason="cocotb is not installed: pip install cocotb==1.9.2")
    command = _PACKAGES[simulator]
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed: apt-get install {command}")


def _run(command: list[str], folder: Path, env: Mapping[str, str]) -> tuple[int, str]:
    """Exit code and last lines; one that takes too long is ended with all that it started."""
    with (folder / "said.txt").open("w+") as said:
        child = subprocess.Popen(
            command, cwd=folder, stdout=said, stderr=subprocess.STDOUT, env=env,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = child.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            code = child.wait()
        said.seek(0)
        return code, said.read()[-9000:]


def sources() -> list[Path]:
    """All of fpga/rtl, the package first."""
    package = RTL / "ragrig_regs_pkg.sv"
    return [package, *(path for path in sorted(RTL.glob("*.sv")) if path != package)]


def simulate(
    top: str, simulator: str, parameters: Mapping[str, int], extra: tuple[Path, ...] = (),
    folder: str | None = None,
) -> None:  # fmt: skip
    """Runs fpga/tb/<folder>/test_<top>.py against a module; the folder is top's own by default.

    Raises:
        AssertionError: a test of the bench failed, or none ran.
    """
    need(simulator)
    key = hashlib.sha256(json.dumps([simulator, dict(parameters)]).encode()).hexdigest()[:8]
    build = BUILD / f"{top}-{key}"
    build.mkdir(parents=True, exist_ok=True)
    results = build / "results.xml"
    results.unlink(missing_ok=True)
    fast = ["-Wno-fatal", "-CFLAGS", "-O0"]  # compiles longer than it runs
    job = {
        "simulator": simulator, "sources": [str(p) for p in (*sources(), *extra)], "top": top,
        "parameters": dict(parameters), "build_dir": str(build), "results": str(results),
        "module": f"test_{top}", "seed": SEED,
        "build_args": fast if simulator == "verilator" else [],
    }  # fmt: skip
    path = os.pathsep.join((str(TB / (folder or top)), str(TB), str(ROOT)))
    # cocotb asks pytest to rewrite its assertions; that must not load every plugin.
    own = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    own |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "MAKEFLAGS": "-j2"}
    code, said = _run(
        [sys.executable, "-c", _RUN, json.dumps(job)], build, own | {"PYTHONPATH": path}
    )
    assert code == 0, said
    assert results.exists(), f"the bench wrote no results\n{said}"
    cases = list(ET.parse(results).getroot().iter("testcase"))
    failed = [c.get("name") for c in cases if c.find("failure") is not None]
    assert cases, f"no test ran\n{said}"
    assert failed == [], f"seed {SEED}: {failed} failed\n{said}"
