"""What the papers report, computed anew."""
