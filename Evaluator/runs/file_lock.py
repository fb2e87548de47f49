"""A lock on an open file, so that two processes never write the same one."""

import errno
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FAR_BEHIND_THE_END = 1 << 40  # Windows lets nobody else read the bytes that are locked


def take_lock(file: BinaryIO) -> bool:
    """Hold `file` for this process; False where another one does.

    The system lets go of it when the file is closed or the process ends, however it ends.
    """
    try:
        if fcntl:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            file.seek(_FAR_BEHIND_THE_END)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise
        return False
    return True
