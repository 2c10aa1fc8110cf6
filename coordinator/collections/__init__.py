"""Collections on disk: committed snapshots, their texts, filters and writers."""
