"""Shared vocabulary of ragrig: types, errors, configuration, storage and wire."""
