"""What every pulled source gives: pages of records as JSON texts, of a span of time. No source, no files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from obs_pipeline.errors import ObsError

Page = Sequence[str]
"""Records as JSON objects, each on one line."""

Fetch = Callable[[datetime, datetime], Iterator[Page]]
"""The records whose calls began from one time on and before another (UTC), each once, page by page.

Raises ``PullFailed`` when the source does not answer, or not whole; what came before is not to be taken for everything.
"""


class PullFailed(ObsError):
    """A source could not be read; the message says which and why, and holds no secret."""

    exit_code = 3
