"""Networks that see and speak."""
