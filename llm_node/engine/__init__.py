"""The serving engine: paged KV cache, one scheduler, one packed forward per step.

``engine.Engine.step`` is the place to start reading; ``docs/engine.md`` tells a
request's life.
"""
