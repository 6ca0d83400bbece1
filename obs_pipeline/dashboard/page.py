"""The widget's page: where the built file lies, and what is sent with it.

Here: one file with its headers, or in its place a word on how to build it. Who may load it is decided elsewhere: it holds no
data. The policy names the file's own script and style by their digests, so that nothing else runs in it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

WIDGET: Final = Path(__file__).parent / "widget" / "index.html"
"""Where the built page lies, if it was built."""

NOT_BUILT: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>obs-pipeline</title>
<body><h1>obs-pipeline</h1><p>The page was not built here: <code>make widget</code> builds it, once the npm registry can be
reached.</p>
<p>The numbers are served as JSON under <code>/api</code>, described in <code>/openapi.json</code>, and to assistants under
<code>/mcp</code>; each needs a token.</p></body></html>"""

_SCRIPT: Final = re.compile(r"<script\b[^>]*>(.*?)</script>", re.DOTALL)
_STYLE: Final = re.compile(r"<style\b[^>]*>(.*?)</style>", re.DOTALL)
_OTHERS: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}


@dataclass(frozen=True, slots=True)
class Page:
    """The page as it is sent; ``headers`` are those of either body."""

    html: bytes
    packed: bytes
    headers: Mapping[str, str]

    @property
    def etag(self) -> str:
        return self.headers["ETag"]


class PageFile:
    """Reads the page again when its file changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[tuple[int, int], Page] | None = None

    def page(self) -> Page:
        try:
            told = self._path.stat()
            mark = (told.st_mtime_ns, told.st_size)
            if self._read is None or self._read[0] != mark:
                self._read = (mark, page_of(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return page_of(NOT_BUILT)
        return self._read[1]


def page_of(html: str) -> Page:
    """A document with the strictest headers that it works under."""
    body = html.encode()
    headers = {
        **_OTHERS,
        "Content-Security-Policy": policy(html),
        "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        "Vary": "Accept-Encoding",
    }
    return Page(body, gzip.compress(body, mtime=0), headers)


def policy(html: str) -> str:
    """The Content-Security-Policy of a document that is whole in itself and asks its own server only."""
    # ``data:`` is for the small pictures that styles draw with.
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_digests(_SCRIPT, html)}",
            f"style-src {_digests(_STYLE, html)}",
            "img-src data:",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digests(element: re.Pattern[str], html: str) -> str:
    found = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in element.findall(html))
    return " ".join(f"'sha256-{digest}'" for digest in found) or "'none'"
