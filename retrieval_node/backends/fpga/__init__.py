"""The FPGA backend: a driver over a small device protocol, and the devices behind it."""
