"""Settings from YAML, the paths that follow from them, and what may change while the daemon runs."""
