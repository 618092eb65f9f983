"""The speedrun: which configurations reach an accuracy, and in how many seconds of distillation."""

TARGETS: dict[str, tuple[float, ...]] = {"fashion_mnist": (70, 75, 80, 83.9, 86.7, 88.5), "digits": (90, 92, 95)}
"""By data set, test accuracies in percent to be reached."""
