"""Files that survive a crash: atomic writes, locks, sealed tensors, checkpoints and the journal of a run."""
