"""kNN-LM datastores: collections of a model's states, each with the token that followed."""
