"""The error every room raises for something a user can mend.

The message is the whole story in one or two sentences: what is wrong, where (file, line, field), what to do.
The command line prints it without a traceback and exits with ``exit_code``.
"""

from __future__ import annotations


class ObsError(Exception):
    """Something the user can mend; the message says what, where and how."""

    exit_code = 2
