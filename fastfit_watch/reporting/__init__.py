"""Everything that is told while and after work: `outputs/`, the gallery, notifications, metrics."""
