"""Ingestion: files to text, text to chunks, chunks to vectors, vectors to a snapshot."""
