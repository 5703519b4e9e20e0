"""The `bench` command: how fast this machine is, how near its limits, and against the published order of work."""
