"""A rig as manifests for engines that run containers.

``deployment`` turns a rig file into services with commands, mounts and resources, ``plan`` lays a
plan's batches over a rig, ``compose``, ``kubernetes`` and ``ray`` write what those engines read.
"""
