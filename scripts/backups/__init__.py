"""Backup, monitoring and restoring of the two instance files: see `backup_monitor.py`."""
