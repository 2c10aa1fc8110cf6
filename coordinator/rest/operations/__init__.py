"""The endpoints, one module per topic; each has ``add(router)``."""
