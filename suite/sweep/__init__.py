"""Sweeps: every run of a table as a process of its own, by a pool on some engine or by a job array of Slurm."""
