"""How fast a training step is, as ratios within one run."""
