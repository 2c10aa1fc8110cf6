"""Makes the Vitis kernel for a number of channels: ragrig_scan.sv and kernel.xml.

Both come from the files that are kept: fpga/rtl/ragrig_scan.sv, which has four channels,
and fpga/syn/kernel.xml, which lists every register. See fpga/syn/README.md.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHELL = ROOT / "fpga" / "rtl" / "ragrig_scan.sv"
KERNEL = ROOT / "fpga" / "syn" / "kernel.xml"
_OF_CHANNEL = re.compile(r"m_axi_codes_(\d\d)_")
_NAMED = re.compile(r'name="(?:m_axi_codes|codes|biases)_(\d\d)"')
_LIST = re.compile(r"(.*?\{)(m_axi_codes_\d\d_\w+(?:, m_axi_codes_\d\d_\w+)*)(\}.*)")


def shell(channels: int) -> str:
    """ragrig_scan with so many channels, a power of two up to 32."""
    lines, out, block = SHELL.read_text(encoding="utf-8").splitlines(), [], []
    for line in lines:
        whole = _LIST.fullmatch(line)
        found = _OF_CHANNEL.search(line)
        if whole or found is None:
            out += _repeated(block, channels)
            block = []
            out.append(_list(whole, channels) if whole else line)
        elif found.group(1) == "00":
            block.append(line)
    text = "\n".join([*out, ""])
    text = text.replace(".CHANNELS(4)", f".CHANNELS({channels})")
    if channels == 4:
        return text
    return text.replace("of four channels (a U250's DDR banks)", f"of {channels} channels")


def _repeated(block: list[str], channels: int) -> list[str]:
    """Channel 0's lines for every channel; the last port of the list takes no comma."""
    made = [
        line.replace("m_axi_codes_00_", f"m_axi_codes_{channel:02d}_")
        for channel in range(channels)
        for line in block
    ]
    if made and "put logic" in made[0]:
        made = [line if line.endswith(",") else f"{line}," for line in made]
        made[-1] = made[-1].removesuffix(",")
    return made


def _list(whole: re.Match[str], channels: int) -> str:
    """A list of signals: as the file's, highest or lowest channel first."""
    names = [(n[12:14], n[15:]) for n in whole.group(2).split(", ")]
    kinds = list(dict.fromkeys(name for _, name in names))
    down = names[0][0] != "00"
    order = range(channels - 1, -1, -1) if down else range(channels)
    made = ", ".join(f"m_axi_codes_{c:02d}_{kind}" for c in order for kind in kinds)
    return f"{whole.group(1)}{made}{whole.group(3)}"


def kernel_xml(channels: int) -> str:
    """kernel.xml without the channels that this build lacks."""
    kept = [
        line
        for line in KERNEL.read_text(encoding="utf-8").splitlines()
        if not (found := _NAMED.search(line)) or int(found.group(1)) < channels
    ]
    numbers = itertools.count()
    return "\n".join([*(_numbered(line, numbers) for line in kept), ""])


def _numbered(line: str, numbers: Iterator[int]) -> str:
    """An argument gets the next number."""
    return re.sub(r' id="\d+"', f' id="{next(numbers)}"', line) if "<arg " in line else line


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("channels", type=int, choices=[1, 2, 4, 8, 16, 32])
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    (given.folder / "ragrig_scan.sv").write_text(shell(given.channels), encoding="utf-8")
    (given.folder / "kernel.xml").write_text(kernel_xml(given.channels), encoding="utf-8")


if __name__ == "__main__":
    main()
