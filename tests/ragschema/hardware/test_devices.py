"""Device files and calibrations: what ships, and how a mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragschema.errors import InvalidInput
from ragschema.hardware.calibration import find_calibration, parse_calibration
from ragschema.hardware.devices import Accelerator, Host, catalogue, find_device, parse_device

CHIP = """
name: my-chip
kind: accelerator
figures:
  flops_per_s: {value: 1.0e+12, source: measured}
  memory_bytes: {value: 1.0e+9, source: measured}
  memory_bytes_per_s: {value: 1.0e+10, source: measured}
  link_bytes_per_s: {value: 1.0e+9, source: measured}
"""


def test_every_shipped_device_loads_and_has_its_files_name() -> None:
    assert {"xpu-a", "xpu-b", "xpu-c", "rago-host"} <= set(catalogue())
    for name, device in catalogue().items():
        assert device.name == name


def test_a_device_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "chip.yaml"
    path.write_text(CHIP, encoding="utf-8")
    assert find_device(str(path)) == Accelerator("my-chip", 1e12, 1e9, 1e10, 1e9)


@pytest.mark.parametrize(
    ("old", "new", "field", "hint"),
    [
        ("flops_per_s:", "flop_per_s:", "figures.flop_per_s", "did you mean flops_per_s?"),
        ("value: 1.0e+12", "value: -1.0", "figures.flops_per_s.value", "ragschema/hardware"),
        ("value: 1.0e+12", "value: fast", "figures.flops_per_s.value", "ragschema/hardware"),
        (", source: measured}", "}", "figures.flops_per_s.source", "ragschema/hardware"),
        ("kind: accelerator", "kind: gpu", "kind", "ragschema/hardware"),
        ("name: my-chip", "name: My Chip", "name", "ragschema/hardware"),
        ("name: my-chip", "nom: my-chip", "nom", "use one of name"),
        (
            "  flops_per_s: {value: 1.0e+12, source: measured}\n",
            "",
            "figures",
            "every number needs a value and a source",
        ),
        (
            "figures:\n",
            "figures:\n  memory_share: {value: 1.5, source: x}\n",
            "figures.memory_share.value",
            "give a share",
        ),
    ],
)
def test_a_bad_device_names_the_figure(old: str, new: str, field: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_device(CHIP.replace(old, new, 1), "chip.yaml")
    assert caught.value.field == field
    assert hint in (caught.value.hint or "")


def test_an_unknown_device_names_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="not a known device") as caught:
        find_device("xpu-z")
    assert "xpu-c" in (caught.value.hint or "")


def test_a_calibration_lies_over_the_datasheet() -> None:
    chip, host = find_device("xpu-c"), find_device("rago-host")
    assert isinstance(chip, Accelerator)
    assert isinstance(host, Host)
    calibration = find_calibration("rago")
    assert calibration.over(chip).encoder_share < chip.encoder_share == 1.0
    assert calibration.over(host).memory_share < host.memory_share == 1.0


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("name: x\naccelerator: {flops: {value: 1.0, source: y}}", "accelerator.flops"),
        ("name: x\nhost: {cores: {value: 1.0}}", "host.cores.source"),
        ("name: x\ngpu: {}", "gpu"),
    ],
)
def test_a_bad_calibration_names_the_figure(text: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_calibration(text, "x.yaml")
    assert caught.value.field == field


def test_an_unknown_calibration_names_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="no calibration") as caught:
        find_calibration("guess")
    assert "rago" in (caught.value.hint or "")
