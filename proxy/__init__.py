"""HTTP in, HTTP out: the front end, the life of a request, and the upstream side."""

__version__ = "0.1.0"
