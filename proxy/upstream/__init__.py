"""Where a lease is spent: URL, credentials and connections of one instance."""
