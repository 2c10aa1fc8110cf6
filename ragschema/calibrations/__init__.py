"""Calibrations: what the datasheets do not say, fitted to measurements that a file names."""
