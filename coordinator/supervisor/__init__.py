"""Starts the processes of a rig on this machine, keeps them running and stops them."""
