"""The life of one request, free of any HTTP library."""
