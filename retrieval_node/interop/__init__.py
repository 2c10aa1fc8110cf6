"""Indexes of other libraries, read and written."""
