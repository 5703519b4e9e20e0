"""The `doctor` command: can this machine do the work? Every check reads, and changes nothing."""
