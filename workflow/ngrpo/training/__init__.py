"""Training runs: launch, nodes, checkpoints, the save schedule; all that touches verl is in `training.verl`."""
