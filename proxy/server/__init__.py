"""Listening, signals, drain."""
