"""Cost models: pure functions from shapes and devices to seconds."""
