"""From gin files and bindings to runs. Beside `suite.registry` the only package that imports gin."""

from suite.config.resolve import Run, resolve

__all__ = ["Run", "resolve"]
