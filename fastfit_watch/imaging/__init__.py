"""Picture files: reading, writing, their marks and their credentials."""
