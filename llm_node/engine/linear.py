"""Linear layers by the compiled kernels, over weights where the checkpoint has them.

torch and oneDNN are quickest with weights in an order of their own: a second copy,
or one that replaces the mapped file. The kernels read rows in the file's order, and
with up to some dozens of tokens they are as quick (docs/engine.md has figures). So
weights stay views of the file, shared by processes, and a tied output embedding
stays the same tensor.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

import torch

#: Tokens beyond which weights in bfloat16 are no longer what a product waits for.
_FEW_TOKENS: Final = 8
#: What the kernels read weights in; bfloat16 is widened in registers, and summed in float32.
DTYPES: Final = (torch.float32, torch.bfloat16)


class NativeLinear(torch.nn.Module):
    """Replaces a ``torch.nn.Linear`` and holds its very parameters, by the same names.

    On the CPU, without gradients: x [..., in] to [..., out], in the dtype of the weights.
    """

    def __init__(self, linear: torch.nn.Linear, module: ModuleType) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._apply_linear = module.linear
        halves = linear.weight.dtype is torch.bfloat16
        self._most_tokens = _FEW_TOKENS if halves and module.multiplies_halves() else None
        # The same memory, seen by numpy.
        self._weight = bits_of(linear.weight.detach())
        self._bias = None if linear.bias is None else linear.bias.detach().float().numpy()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._most_tokens is not None and x.numel() > self._most_tokens * self.in_features:
            return torch.nn.functional.linear(x, self.weight, self.bias)
        y = torch.empty(*x.shape[:-1], self.out_features)
        self._apply_linear(
            x.reshape(-1, self.in_features).float().contiguous().numpy(),
            self._weight,
            self._bias,
            y.view(-1, self.out_features).numpy(),
            threads=torch.get_num_threads(),
        )
        return y.to(self.weight.dtype)


def bits_of(weight: torch.Tensor) -> Any:
    """The same memory for numpy, which has no bfloat16: its bits as uint16 then."""
    bits: Any = weight if weight.dtype is torch.float32 else weight.view(torch.uint16)
    return bits.numpy()


def use_native(model: torch.nn.Module, module: ModuleType) -> None:
    """Replaces every plain linear layer whose weights the kernels can read."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear and _readable(child):
                setattr(parent, name, NativeLinear(child, module))


def _readable(linear: torch.nn.Linear) -> bool:
    parameters: list[Any] = [p for p in (linear.weight, linear.bias) if p is not None]
    if linear._forward_pre_hooks or linear.weight.dtype not in DTYPES:
        return False
    return all(
        p.device.type == "cpu" and p.dtype is linear.weight.dtype and p.is_contiguous()
        for p in parameters
    )
