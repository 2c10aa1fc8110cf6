"""Retrieval during generation: sequences pause, the caller retrieves, they go on."""
