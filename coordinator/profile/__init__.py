"""Measures what each role of a rig costs on this machine, alone and over many sizes.

``plan`` says which rig and which points, ``collection`` makes vectors to search, ``searching``,
``language`` and ``edge`` have the probes, ``measure`` repeats them, ``run`` puts it together.
"""
