"""Hardware the planner knows: one YAML file per device, every number with its source."""
