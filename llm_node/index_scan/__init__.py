"""The nearest inverted lists of query vectors, on this node's device."""
