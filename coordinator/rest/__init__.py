"""The REST edge: strict bodies in, typed errors and server-sent events out."""
