"""What is made from the register specification is fresh, and says the same everywhere."""

import re
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ragschema.errors import InvalidInput
from retrieval_node.backends.fpga import generate, registers
from retrieval_node.backends.fpga.regspec import parse_spec

ROOT = Path(__file__).parents[4]
TEXT = (ROOT / generate.SOURCE).read_text(encoding="utf-8")


def copied(target: Path) -> Path:
    """The specification and all that is made from it, in a folder of its own."""
    for path in (generate.SOURCE, *(path for path, _ in generate.OUTPUTS)):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, target / path)
    return target


def test_everything_in_the_repository_is_fresh() -> None:
    assert generate.stale(ROOT) == []


@pytest.mark.parametrize("path", [path for path, _ in generate.OUTPUTS])
def test_an_edited_text_is_stale(tmp_path: Path, path: Path) -> None:
    root = copied(tmp_path)
    (root / path).write_text("edited", encoding="utf-8")
    assert generate.stale(root) == [path]
    (root / path).unlink()
    assert generate.stale(root) == [path]


def test_a_changed_specification_makes_all_stale_until_they_are_written(tmp_path: Path) -> None:
    root = copied(tmp_path)
    changed = TEXT.replace('name = "nprobe"', 'name = "lists_per_query"')
    (root / generate.SOURCE).write_text(changed, encoding="utf-8")
    assert generate.stale(root) == [path for path, _ in generate.OUTPUTS]
    generate.write(root)
    assert generate.stale(root) == []


def test_the_command_names_what_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copied(tmp_path)
    (root / "fpga/syn/kernel.xml").unlink()
    monkeypatch.chdir(root)
    for arguments, code in ((["--check"], 1), ([], None), (["--check"], 0)):
        monkeypatch.setattr(sys, "argv", ["generate", *arguments])
        if code is None:
            generate.main()
            continue
        with pytest.raises(SystemExit) as caught:
            generate.main()
        assert caught.value.code == code
    assert "kernel.xml is stale" in capsys.readouterr().err


def test_python_systemverilog_and_kernel_agree_on_every_offset() -> None:
    package = (ROOT / "fpga/rtl/ragrig_regs_pkg.sv").read_text(encoding="utf-8")
    found = dict(re.findall(r"REG_(\w+) = 12'h([0-9a-f]{3});", package))
    tree = ElementTree.fromstring((ROOT / "fpga/syn/kernel.xml").read_text(encoding="utf-8"))
    arguments = {arg.attrib["name"]: arg.attrib for arg in tree.iter("arg")}
    for name, register in registers.REGISTERS.items():
        assert int(found[name.upper()], 16) == register.offset
        if name not in ("ctrl", "gie", "ier", "isr"):
            argument = arguments.get(f"{name}_00" if register.per_channel else name)
            assert (argument is not None) == register.writable
            if argument is not None:
                assert int(argument["offset"], 16) == register.offset
    assert int(arguments["codes_31"]["offset"], 16) == registers.REGISTERS["codes"].at(31)
    assert f"VERSION = 32'h{registers.VERSION:08x};" in package


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("offset = 0x014", "offset = 0x010", "nprobe"),
        ("offset = 0x038", "offset = 0x03C", "tables"),
        ("offset = 0x200", "offset = 0x1F8", "biases"),
        ("offset = 0x360", "offset = 0x1000", "stall_result"),
        ('access = "rw"', 'access = "maybe"', "register.4.access"),
        ("codes = {word = 1", "codes = {word = 0", "list"),
        ("sum = {word = 1", "sum = {word = 2", "entry"),
        ("version = 0x00010001", "version =", "regs.toml"),
    ],
)
def test_a_specification_that_cannot_be_names_the_register(old: str, new: str, field: str) -> None:
    assert old in TEXT
    with pytest.raises(InvalidInput) as caught:
        parse_spec(TEXT.replace(old, new, 1))
    assert caught.value.field == field
