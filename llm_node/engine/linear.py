"""Linear layers by the compiled kernels, over weights where the checkpoint has them.

torch and oneDNN are quickest with weights in an order of their own: a second copy,
or one that replaces the mapped file. The kernels read rows in the file's order, and
with up to some dozens of tokens they are as quick (docs/engine.md has figures). So
weights stay views of the file, shared by processes, and a tied output embedding
stays the same tensor.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch


class NativeLinear(torch.nn.Module):
    """Replaces a ``torch.nn.Linear`` and holds its very parameters, by the same names.

    Float32 on the CPU, without gradients: x [..., in] to [..., out].
    """

    def __init__(self, linear: torch.nn.Linear, module: ModuleType) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._apply_linear = module.linear
        # The same memory, seen by numpy.
        self._arrays = tuple(
            None if p is None else p.detach().numpy() for p in (linear.weight, linear.bias)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.empty(*x.shape[:-1], self.out_features)
        self._apply_linear(
            x.reshape(-1, self.in_features).contiguous().numpy(),
            *self._arrays,
            y.view(-1, self.out_features).numpy(),
            threads=torch.get_num_threads(),
        )
        return y


def use_native(model: torch.nn.Module, module: ModuleType) -> None:
    """Replaces every plain linear layer whose weights the kernels can read."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear and _readable(child):
                setattr(parent, name, NativeLinear(child, module))


def _readable(linear: torch.nn.Linear) -> bool:
    parameters: list[Any] = [p for p in (linear.weight, linear.bias) if p is not None]
    return not linear._forward_pre_hooks and all(
        p.device.type == "cpu" and p.dtype is torch.float32 and p.is_contiguous()
        for p in parameters
    )
