"""What survives a crash: the ledger (SQLite) and the spool."""
