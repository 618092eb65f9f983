"""Files that survive: atomic writes, locks, sealed tensors, checkpoints and the journal of a run."""
