"""The light, long-lived process: it wires loops, threads and signals, and owns the engine processes."""
