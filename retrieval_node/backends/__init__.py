"""Scan backends behind one protocol; ``registry`` opens them by name."""
