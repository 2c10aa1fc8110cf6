"""Live re-planning: whether what is served is still what was planned for, and what would be better.

``observe`` keeps a sliding window of what requests were, ``drift`` tells when it leaves the
plan's range, ``propose`` plans anew in a process of its own, ``loop`` puts them together.
"""
