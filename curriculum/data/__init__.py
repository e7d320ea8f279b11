"""From samples on disk to training conversations."""
