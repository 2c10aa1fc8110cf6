"""The Vitis kernel for other numbers of channels, from the files that are kept."""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from scripts.make_kernel import SHELL, kernel_xml, shell
from tests.fpga.simulate import RTL, sources


def test_four_channels_are_the_file_that_is_kept() -> None:
    assert shell(4) == SHELL.read_text()


@pytest.mark.parametrize("channels", [1, 4, 32])
def test_shell_and_kernel_file_name_the_same_ports(channels: int) -> None:
    wanted = {f"m_axi_codes_{channel:02d}" for channel in range(channels)}
    assert {name[:14] for name in re.findall(r"m_axi_codes_\d\d_\w+", shell(channels))} == wanted
    root = ET.fromstring(kernel_xml(channels))
    ports = {port.get("name") for port in root.iter("port")}
    assert ports == wanted | {"s_axi_control", "m_axi_host"}
    arguments = list(root.iter("arg"))
    assert [int(one.get("id", -1)) for one in arguments] == list(range(len(arguments)))
    assert {one.get("port") for one in arguments} == ports
    names = [one.get("name") for one in arguments]
    assert len(set(names)) == len(names)
    assert sum("biases" in str(name) for name in names) == channels


@pytest.mark.rtl
@pytest.mark.parametrize("channels", [1, 32])
@pytest.mark.parametrize("m", [8, 16, 32])
def test_verilator_takes_every_shell(channels: int, m: int, tmp_path: Path) -> None:
    if shutil.which("verilator") is None:
        pytest.skip("verilator is not installed: apt-get install verilator")
    own = tmp_path / "ragrig_scan.sv"
    own.write_text(shell(channels))
    files = [str(path) for path in sources() if path != RTL / "ragrig_scan.sv"]
    done = subprocess.run(
        ["verilator", "--lint-only", "-Wall", "-Wno-UNUSEDPARAM", "-Wno-SYMRSVDWORD", f"-GM={m}",
         "--top-module", "ragrig_scan", *files, str(own)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
