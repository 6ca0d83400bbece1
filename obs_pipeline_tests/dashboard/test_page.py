"""The page and what is sent with it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
from pathlib import Path

import pytest

from obs_pipeline.dashboard.page import NOT_BUILT, WIDGET, PageFile, page_of, policy


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_policy_names_each_script_and_style_and_nothing_else_may_run():
    html = '<style>a{}</style><style rel="x">b{}</style><script type="module" crossorigin>1 < 2\n</script><p>é</p>'
    told = dict(part.split(" ", 1) for part in policy(html).split("; "))
    assert told["script-src"] == digest("1 < 2\n")
    assert told["style-src"] == f"{digest('a{}')} {digest('b{}')}"
    assert told["default-src"] == "'none'"
    assert "unsafe" not in policy(html)


def test_a_page_without_scripts_may_run_none():
    assert "script-src 'none'" in policy(NOT_BUILT)


def test_both_bodies_are_the_same_page():
    page = page_of("<p>ü</p>")
    assert gzip.decompress(page.packed) == page.html == "<p>ü</p>".encode()


def test_a_page_is_read_anew_when_its_file_changed_and_may_come_and_go(tmp_path: Path):
    file, pages = tmp_path / "index.html", PageFile(tmp_path / "index.html")
    assert b"make widget" in pages.page().html
    file.write_text("one")
    first = pages.page()
    assert first.html == b"one"
    assert pages.page() is first
    file.write_text("two")
    os.utime(file, ns=(1, 1))
    assert pages.page().html == b"two"
    file.unlink()
    assert b"make widget" in pages.page().html


@pytest.mark.skipif(not WIDGET.exists(), reason="the page was not built here: make widget")
def test_the_built_page_is_whole_in_itself():
    html = WIDGET.read_text(encoding="utf-8")
    assert html.count("</script>") == 1
    assert html.count("</style>") == 1
    assert "<link" not in html.replace('<link rel="icon" href="data:,"', "")
    assert 'src="' not in html.split("<script", 1)[0]
