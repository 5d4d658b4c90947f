"""Actors that own instances, their capacity and their configuration. Knows no HTTP."""
