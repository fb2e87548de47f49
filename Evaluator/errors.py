"""Errors that end a program with one sentence and an exit status."""

OK = 0
FAILED = 1
USAGE = 2
STOPPED_EARLY = 3  # the output is good; the same command goes on
INTERRUPTED = 130  # Ctrl-C; the output is good
READER_WENT_AWAY = 141  # closed pipe


class ReportedError(Exception):
    """What happened, to which thing, what to do: one sentence for a person. `status` is the exit status."""

    status = FAILED


class UsageError(ReportedError):
    """A flag, a file or a setting that has to be changed before the command can work."""

    status = USAGE
