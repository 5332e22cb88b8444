"""What can be wrong with a job, one class each; the message is one sentence for the person who started it."""

from __future__ import annotations

import errno

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""How the system says that there is no room: the disk, a quota, a limit on a file's size."""


class JobError(Exception):
    """The job cannot be done, and its starter can do something about it. The message is one plain sentence."""


class EmptyFile(JobError):
    """The file has no bytes, or nothing but blank lines."""


class HeaderOnly(JobError):
    """The file has a header and no rows."""


class BadHeader(JobError):
    """The first record cannot be read as column names."""


class NotText(JobError):
    """The file is a binary, an archive or a spreadsheet."""


class WrongEncoding(JobError):
    """The file cannot be read in the encoding that was given, or no encoding fits it."""


class BadArgument(JobError):
    """An argument does not make sense for this file or this machine."""


class TooManyColumns(JobError):
    """The file has more columns than a table can have."""


class TooManyRejects(JobError):
    """More rows were rejected than the limit allows."""


class TableExists(JobError):
    """The table that was asked for is there already and belongs to something else."""


class DatabaseAway(JobError):
    """The database could not be reached for longer than a job waits."""


class DatabaseRefused(JobError):
    """The database answered with an error that trying again does not change."""


class DiskFull(JobError):
    """There is no room left for the job's files or rows."""


class OutsideRoots(JobError):
    """The folder is not below one that may be read."""


class SimulatedFailure(JobError):
    """The failure that a simulation was asked for."""
