"""What every registered component must keep to, checked on small problems in float64."""

from suite.contracts.checks import Finding, check

__all__ = ["Finding", "check"]
