"""What the operating system gives: whole-file writes, folders by handle, devices, sd_notify."""
