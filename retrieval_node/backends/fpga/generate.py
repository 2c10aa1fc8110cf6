"""Makes from ``fpga/regs.toml`` every text that names a register.

``python -m retrieval_node.backends.fpga.generate`` writes them below the current
directory; with ``--check`` it says which are stale and fails.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from xml.sax.saxutils import quoteattr

from retrieval_node.backends.fpga.regspec import RegisterSpec, parse_spec

SOURCE: Final = Path("fpga/regs.toml")
_COMMAND: Final = "python -m retrieval_node.backends.fpga.generate"
_MADE: Final = f"Made from fpga/regs.toml by `{_COMMAND}`; do not edit."


def python_map(spec: RegisterSpec) -> str:
    """The register map as a Python module."""
    lines = [
        '"""Registers and records of the accelerator.', "", _MADE, '"""', "",
        "from __future__ import annotations", "", "import enum",
        "from collections.abc import Mapping", "from dataclasses import dataclass",
        "from typing import Final", "",
        f"VERSION: Final = {spec.version:#010x}",
        f'KERNEL: Final = "{spec.kernel}"',
        f"ADDRESS_BITS: Final = {spec.address_bits}",
        f"MAX_CHANNELS: Final = {spec.max_channels}", "", "",
        "@dataclass(frozen=True)", "class Register:",
        '    """Byte offset; ``wide`` ones are 64 bits, the lower half first."""', "",
        "    offset: int", "    wide: bool = False", "    per_channel: bool = False",
        "    writable: bool = False", "",
        "    def at(self, channel: int = 0) -> int:",
        '        """Offset of one channel\'s register."""',
        "        return self.offset + channel * (8 if self.wide else 4)", "", "",
        "REGISTERS: Final[Mapping[str, Register]] = {",
    ]  # fmt: skip
    lines += [*_python_registers(spec), "}", *_python_enums(spec), "", ""]
    lines += [f"{n.upper()}_BYTES: Final = {r.bytes}" for n, r in spec.records.items()]
    return "\n".join(lines) + "\n"


def _python_registers(spec: RegisterSpec) -> Iterator[str]:
    for register in spec.registers:
        options = [f"0x{register.offset:03X}"]
        options += ["wide=True"] if register.bits == 64 else []
        options += ["per_channel=True"] if register.per_channel else []
        options += ["writable=True"] if register.access != "ro" else []
        yield f'    "{register.name}": Register({", ".join(options)}),'


def _python_enums(spec: RegisterSpec) -> Iterator[str]:
    for name, bits in spec.bits.items():
        yield from (
            "",
            "",
            f"class {name.title()}(enum.IntFlag):",
            f'    """Bits of {name}."""',
            "",
        )
        yield from (f"    {key.upper()} = {1 << bit.bit:#x}" for key, bit in bits.items())
    for name, values in spec.enums.items():
        yield from ("", "", f"class {name.title()}(enum.IntEnum):")
        yield from (f'    """Values of the register {name}."""', "")
        yield from (f"    {key.upper()} = {value.value}" for key, value in values.items())
    for name, record in spec.records.items():
        yield from ("", "", f"class {name.title()}Word(enum.IntEnum):")
        yield from (f'    """Places of 32-bit words in record {name}."""', "")
        yield from (f"    {key.upper()} = {word.word}" for key, word in record.words.items())


def _constants(spec: RegisterSpec) -> Iterator[tuple[str, str, str, str]]:
    """Type, name, value and comment of every constant of the package."""
    yield "logic [31:0]", "VERSION", f"32'h{spec.version:08x}", f"version {spec.version_text}"
    yield "int", "ADDRESS_BITS", str(spec.address_bits), "of the AXI-Lite port"
    yield "int", "MAX_CHANNELS", str(spec.max_channels), "registers exist for so many"
    width = spec.address_bits
    for register in spec.registers:
        name = f"REG_{register.name.upper()}"
        lower = f"{width}'h{register.offset:03x}"
        yield f"logic [{width - 1}:0]", name, lower, register.doc
        if register.bits == 64 and not register.per_channel:
            upper = f"{width}'h{register.offset + 4:03x}"
            yield f"logic [{width - 1}:0]", f"{name}_HIGH", upper, "upper half"
    for name, bits in spec.bits.items():
        for key, bit in bits.items():
            yield "int", f"{name.upper()}_{key.upper()}_BIT", str(bit.bit), bit.doc
    for name, values in spec.enums.items():
        for key, value in values.items():
            constant = f"{name.upper()}_{key.upper()}"
            yield "logic [31:0]", constant, f"32'd{value.value}", value.doc
    for name, record in spec.records.items():
        yield "int", f"{name.upper()}_BYTES", str(record.bytes), record.doc
        for key, word in record.words.items():
            yield "int", f"{name.upper()}_WORD_{key.upper()}", str(word.word), word.doc


def sv_package(spec: RegisterSpec) -> str:
    """The SystemVerilog package, for tools that know ``pkg::NAME`` but no import."""
    lines = [f"// {_MADE}", "// Use ragrig_regs_pkg::NAME: not every tool takes an import.",
             "// Offsets are bytes; a channel's register is at the offset plus 8 * channel.",
             "package ragrig_regs_pkg;", ""]  # fmt: skip
    for kind, name, value, comment in _constants(spec):
        lines += [f"  // {comment}", f"  localparam {kind} {name} = {value};"]
    return "\n".join([*lines, "", "endpackage"]) + "\n"


def doc_table(spec: RegisterSpec) -> str:
    """The documentation page."""
    lines = [
        "# Registers and records of the accelerator", "", _MADE, "",
        f"Version {spec.version_text}. Registers are 32 bits wide; 64-bit ones take two, the lower"
        " half first. rw: argument, ro: status or build, ctl: the block that ap_ctrl_hs prescribes."
        f" A channel's register (0 .. {spec.max_channels - 1}) lies 8 bytes after the one before.",
        "", "| offset | name | bits | access | meaning |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for register in spec.registers:
        name = f"`{register.name}`" + (" per channel" if register.per_channel else "")
        lines.append(
            f"| {register.offset:#05x} | {name} | {register.bits} | {register.access}"
            f" | {register.doc} |"
        )
    for name, bits in spec.bits.items():
        lines += ["", f"## Bits of `{name}`", "", "| bit | name | meaning |", "|---|---|---|"]
        lines += [f"| {bit.bit} | `{key}` | {bit.doc} |" for key, bit in bits.items()]
    for name, values in spec.enums.items():
        lines += ["", f"## Values of `{name}`", "", "| value | name | meaning |", "|---|---|---|"]
        lines += [f"| {value.value} | `{key}` | {value.doc} |" for key, value in values.items()]
    for name, record in spec.records.items():
        lines += ["", f"## Record `{name}`, {record.bytes} bytes", "", record.doc, ""]
        lines += ["| word | name | meaning |", "|---|---|---|"]
        lines += [f"| {word.word} | `{key}` | {word.doc} |" for key, word in record.words.items()]
    return "\n".join(lines) + "\n"


def kernel_xml(spec: RegisterSpec) -> str:
    """The description that packages the core as a Vitis RTL kernel (not run here)."""
    span = hex(1 << spec.address_bits)
    codes = [f"m_axi_codes_{channel:02d}" for channel in range(spec.max_channels)]
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>', f"<!-- {_MADE} -->",
        '<root versionMajor="1" versionMinor="6">',
        f'  <kernel name="{spec.kernel}" language="ip_c" vlnv="ragrig:kernel:{spec.kernel}:1.0"'
        ' attributes="" preferredWorkGroupSizeMultiple="0" workGroupSize="1" interrupt="true"'
        ' hwControlProtocol="ap_ctrl_hs">',
        "    <ports>",
        f'      <port name="s_axi_control" mode="slave" range="{span}" dataWidth="32"'
        ' portType="addressable" base="0x0"/>',
    ]  # fmt: skip
    lines += [
        f'      <port name="{port}" mode="master" range="0xFFFFFFFFFFFFFFFF" dataWidth="512"'
        ' portType="addressable" base="0x0"/>'
        for port in ("m_axi_host", *codes)
    ]
    lines += ["    </ports>", "    <args>"]
    lines += [f"      {argument}" for argument in _arguments(spec)]
    return "\n".join([*lines, "    </args>", "  </kernel>", "</root>"]) + "\n"


def _arguments(spec: RegisterSpec) -> Iterator[str]:
    number = 0
    for register in spec.registers:
        if register.access != "rw":
            continue
        for channel in range(spec.max_channels if register.per_channel else 1):
            name = f"{register.name}_{channel:02d}" if register.per_channel else register.name
            port = f"m_axi_codes_{channel:02d}" if register.port == "codes" else "m_axi_host"
            pointer = register.port is not None
            yield (
                f'<arg name="{name}" addressQualifier="{int(pointer)}" id="{number}"'
                f' port="{port if pointer else "s_axi_control"}" size="{register.nbytes:#x}"'
                f' offset="{register.offset + channel * register.nbytes:#x}"'
                f' type={quoteattr("void*" if pointer else "uint")} hostOffset="0x0"'
                f' hostSize="{register.nbytes:#x}"/>'
            )
            number += 1


#: Where each text goes, below the root of the repository.
OUTPUTS: Final[tuple[tuple[Path, Callable[[RegisterSpec], str]], ...]] = (
    (Path("retrieval_node/backends/fpga/registers.py"), python_map),
    (Path("fpga/rtl/ragrig_regs_pkg.sv"), sv_package),
    (Path("docs/fpga-registers.md"), doc_table),
    (Path("fpga/syn/kernel.xml"), kernel_xml),
)


def stale(root: Path) -> list[Path]:
    """The texts that are not what the specification gives."""
    spec = parse_spec((root / SOURCE).read_text(encoding="utf-8"))
    found = []
    for path, make in OUTPUTS:
        target = root / path
        if not target.is_file() or target.read_text(encoding="utf-8") != make(spec):
            found.append(path)
    return found


def write(root: Path) -> None:
    """Writes every text anew."""
    spec = parse_spec((root / SOURCE).read_text(encoding="utf-8"))
    for path, make in OUTPUTS:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(make(spec), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="say what is stale, write nothing")
    if not parser.parse_args().check:
        write(Path())
        return
    found = stale(Path())
    for path in found:
        print(f"{path} is stale: run `{_COMMAND}`", file=sys.stderr)
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
