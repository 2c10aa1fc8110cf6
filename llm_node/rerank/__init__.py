"""Cross-encoders: how well passages answer a query."""
