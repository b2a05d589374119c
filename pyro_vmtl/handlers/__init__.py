"""Effect handlers that work on any Pyro program, and schedules of their settings."""
