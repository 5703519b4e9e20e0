"""The networks in diffusers' form, with attention to references."""
