"""The engine's compiled kernels and how they are found; `_kernels.pyi` is their interface."""
