"""LLM node: embeds texts and generates answers behind gRPC."""
