"""What is installed here, what is ready, and whether this device computes what it should: `python -m suite.doctor`."""
