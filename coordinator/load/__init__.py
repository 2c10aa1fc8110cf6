"""Load on an endpoint that streams answers as OpenAI's API does: planned, sent, measured.

``prompts`` says what a request reads, ``ragpulse`` and ``workload`` make lists of requests and
their times, ``client`` sends one, ``drive`` sends all, ``report`` sums up.
"""
