"""What people type: parsing, views, and the commands that need no daemon."""
