"""The compiled scan and how it is found; `_scan.pyi` is its interface."""
