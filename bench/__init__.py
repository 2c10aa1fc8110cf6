"""Benchmarks: each answers one question and prints JSON with --json."""
