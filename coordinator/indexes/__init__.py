"""Import, export and tuning of a collection's index."""
