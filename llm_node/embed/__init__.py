"""The embedder role: sentence encoders and the queue in front of them."""
