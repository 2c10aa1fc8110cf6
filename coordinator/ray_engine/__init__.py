"""Runs the nodes of a rig on the machines of a Ray cluster.

``placement`` says what each node needs of a machine, ``actor`` keeps one node's process
running where Ray puts it, ``deployment`` holds the placement group and the actors of one rig,
``engine`` publishes addresses to the coordinator and goes over to another rig. Ray is imported
in ``library`` alone, and only when a cluster is asked for.
"""
