"""What a person starts: the command line, the viewer, batch reports, and the service that all three call."""
