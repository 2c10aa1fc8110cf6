"""What live searches reach, measured in the background."""
