"""Directories of weights: what exists, how it is fetched and verified, and the one that ships."""
