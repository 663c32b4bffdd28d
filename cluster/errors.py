"""What can go wrong, said in one line: the thing, and how to mend it."""

from __future__ import annotations


class ClusterError(Exception):
    """Something that stops the command: `what` happened, and how to `mend` it.

    Every error that a user may see is one of these; the command line prints it as one
    line and exits with `exit_code` (1: the command could not run).
    """

    exit_code = 1

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.what}: {self.mend}" if self.mend else self.what


class InputError(ClusterError):
    """The user's input cannot be used: an unknown atom, a broken config key."""


class MachineError(ClusterError):
    """This machine cannot do it as it stands: a missing program, no disk space, a port in use."""


class CommandFailed(MachineError):
    """A child process failed; `what` names it and how it ended, `mend` is the end of what it said."""


class NodeLost(ClusterError):
    """A node or its host broke under a job. The package is not to blame and is tried elsewhere."""


class BuildFailed(ClusterError):
    """The package's own build failed."""

    exit_code = 2
