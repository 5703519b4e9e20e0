"""From photographs to what the networks read: geometry, masks, labels, garments."""
