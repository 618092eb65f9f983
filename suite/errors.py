"""What goes wrong in a way that a person can mend: one sentence saying what, where and what to do."""


class SuiteError(Exception):
    """An expected failure; `status` is the exit status of the command that meets it."""

    status = 1


class UsageError(SuiteError):
    """The command or the configuration asks for something that cannot be done."""

    status = 2


class RunError(SuiteError):
    """A well-formed run could not go on: data, disk, network or numbers."""


class Interrupted(SuiteError):
    """A signal stopped the run at a checkpoint; the same command goes on from there (status 75: try again)."""

    status = 75
