"""The commands, in rooms by what they are for: each beside its options, and what it needs is loaded when it runs."""
