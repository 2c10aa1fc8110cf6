"""Background ingestion: a bounded queue of child processes."""
