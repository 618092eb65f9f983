"""New classifiers from memories that were made before (paper, A.3)."""
