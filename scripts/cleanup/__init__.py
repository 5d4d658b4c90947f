"""Takes a deployment of the earlier system over: see `cleanup_old_implementation.py`."""
