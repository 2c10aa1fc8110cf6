"""GPU and FPGA."""

from __future__ import annotations

import sys

from coordinator.doctor.machine import Machine
from coordinator.doctor.rows import Level, Row

_QUERY = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
# In a child process: the command itself must never import torch.
_TORCH_CHECK = "import torch; print('yes' if torch.cuda.is_available() else 'no')"
_TORCH_TIMEOUT_S = 60.0


def gpu(machine: Machine) -> Row:
    """An NVIDIA device, its driver, and whether torch can use it."""
    enables = "LLM nodes on the GPU"
    devices = machine.glob("/dev/nvidia[0-9]*")
    listed = machine.output_of(_QUERY)
    if not devices and not listed:
        return Row("GPU", Level.OPTIONAL, "none", enables, "nothing: every node runs on the CPU")
    name = listed.strip().replace("\n", "; ") if listed else ", ".join(devices)
    if not listed:
        return Row("GPU", Level.OPTIONAL, name, enables, "install the NVIDIA driver (nvidia-smi)")
    usable = machine.output_of((sys.executable, "-c", _TORCH_CHECK), _TORCH_TIMEOUT_S)
    if usable is None or usable.strip() != "yes":
        fix = "install a CUDA build of torch in this environment"
        return Row("GPU", Level.OPTIONAL, f"{name}; torch does not see it", enables, fix)
    return Row("GPU", Level.OK, f"{name}; torch sees it", enables)


def fpga(machine: Machine) -> Row:
    """An Alveo card, its kernel driver and the XRT runtime."""
    enables = "retrieval nodes on a real FPGA; the emulated device needs none of this"
    cards = machine.glob("/dev/xclmgmt*") + machine.glob("/dev/xocl*")
    render = machine.glob("/dev/dri/renderD*")
    xrt = machine.env.get("XILINX_XRT")
    tool = machine.which("xbutil") or machine.which("xrt-smi")
    parts = [
        f"card: {', '.join(cards) if cards else 'none'}",
        f"render nodes: {len(render)}",
        f"XRT: {xrt or 'XILINX_XRT is not set'}",
        f"xbutil: {tool or 'not on PATH'}",
    ]
    if cards and xrt and tool:
        return Row("FPGA", Level.OK, "; ".join(parts), enables)
    if cards:
        fix = "install XRT and run `source /opt/xilinx/xrt/setup.sh`"
    else:
        fix = "nothing: device `emulator` runs everywhere"
    return Row("FPGA", Level.OPTIONAL, "; ".join(parts), enables, fix)
