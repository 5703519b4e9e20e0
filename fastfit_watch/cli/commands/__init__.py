"""The commands of the command line. Each stands beside its options, and loads what it needs only when it runs."""
