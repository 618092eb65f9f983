"""Commands beside the suite: each is run as `python -m tools.NAME`."""
