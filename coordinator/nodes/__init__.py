"""The coordinator's side of every node: clients, health, shards and replicas."""
