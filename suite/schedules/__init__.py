"""Schedules: factors of an optimizer's steps over a run."""

from suite.schedules import constant, cosine, linear, warm_up

__all__ = ["constant", "cosine", "linear", "warm_up"]
