"""From a folder in `inputs/` to a verified, claimed job."""
