"""Fitted figures laid over datasheet ones."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from ragschema.errors import InvalidInput
from ragschema.hardware.devices import Accelerator, Device, Fpga, Host, Quantity
from ragschema.userfile import checked_yaml, nearest

_D = TypeVar("_D", bound=Device)


class Calibration(BaseModel):
    """Figures per kind of device; each names what it was fitted to."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    name: str
    accelerator: dict[str, Quantity] = {}
    host: dict[str, Quantity] = {}

    def over(self, device: _D) -> _D:
        """The device with the fitted figures in place of its own; FPGA cards have none."""
        if isinstance(device, Fpga):
            return device
        fitted = self.accelerator if isinstance(device, Accelerator) else self.host
        values: dict[str, Any] = {key: figure.value for key, figure in fitted.items()}
        return replace(device, **values)


@cache
def find_calibration(name: str) -> Calibration:
    """A calibration that ships with ragrig.

    Raises:
        InvalidInput: there is none of this name, or it names a figure that devices lack.
    """
    folder = resources.files("ragschema").joinpath("calibrations")
    known = sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith("yaml")
    )
    if name not in known:
        raise InvalidInput(
            f"{name!r} is no calibration", field="calibration", hint=f"use {', '.join(known)}"
        )
    text = folder.joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return parse_calibration(text, f"{name}.yaml")


def parse_calibration(text: str, source: str) -> Calibration:
    """Checks a calibration's YAML text."""
    hint = "see ragschema/calibrations/ for files to start from"
    calibration = checked_yaml(text, source, Calibration, hint)
    for kind, figures in ((Accelerator, calibration.accelerator), (Host, calibration.host)):
        known = [f.name for f in fields(kind) if f.name != "name"]
        for key in figures:
            if key not in known:
                raise InvalidInput(
                    f"{source}: a device has no figure {key!r}",
                    field=f"{kind.__name__.lower()}.{key}",
                    hint=nearest(key, known),
                )
    return calibration
