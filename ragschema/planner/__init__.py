"""The planner: cost models, the exact search over schedules, reports."""
