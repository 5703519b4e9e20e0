"""The nouns and contracts of the project: looks, jobs, options, errors, messages between processes."""
