"""Metrics for Prometheus: counted in batches after the requests, read when they are asked for."""
