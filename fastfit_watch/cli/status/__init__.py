"""The table of all jobs: what it says, how it is drawn, and its JSON."""
