"""One owner of each device of a node, and who works on it next."""
