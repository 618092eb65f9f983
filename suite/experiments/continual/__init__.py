"""Continual learning: streams of tasks, compressed into memories one after the other (paper, A.2)."""
