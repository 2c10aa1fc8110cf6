"""Questions rewritten into search queries by the node's generator."""
