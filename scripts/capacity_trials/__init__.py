"""What the capacity of this service promises, as trials that can fail."""
