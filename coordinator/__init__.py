"""The CPU coordinator: REST, pipeline, ingestion, supervisor and the ragrig command."""
