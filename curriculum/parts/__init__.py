"""What the four stages share: the fit loop, its schedule and checkpoints, packing, cached features."""
