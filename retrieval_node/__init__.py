"""Retrieval node: shards, numeric contract and scan backends behind gRPC."""
