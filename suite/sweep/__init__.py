"""Sweeps: every run of a table as a process of its own, by a pool on this machine or a job array of Slurm."""
