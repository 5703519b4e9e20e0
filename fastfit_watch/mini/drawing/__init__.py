"""Draws people, garments, and people wearing garments: the world of the `mini` bundle."""
