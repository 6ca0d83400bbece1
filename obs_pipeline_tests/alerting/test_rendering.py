"""Messages can be read in every medium, stay within its limits, and nothing in them is taken for markup."""

from __future__ import annotations

import json
import struct
import zlib
from datetime import datetime
from email import message_from_bytes, policy
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.alerting.picture import HEIGHT, WIDTH, band_png
from obs_pipeline.alerting.rendering import (
    SHOWN,
    SLACK_BLOCKS,
    SLACK_HEADER,
    SLACK_TEXT,
    Fact,
    Item,
    Link,
    Message,
    Picture,
    html_of,
    mail_of,
    places,
    plain,
    safe_links,
    slack_of,
    sparkline,
    tally,
    text_of,
)
from obs_pipeline_tests.alerting.messages import HOSTILE, fleet, hostile, ordinary

NOW = datetime(2026, 11, 24, 9, 30)
text = st.text(max_size=400)
severity = st.sampled_from(["info", "warning", "critical"])
messages = st.builds(
    Message,
    key=text,
    subject=text,
    severity=severity,
    lead=st.text(max_size=5000),
    facts=st.lists(st.builds(Fact, text, text), max_size=12).map(tuple),
    items=st.lists(st.builds(Item, text, severity, text, text), max_size=40).map(tuple),
    links=st.lists(st.builds(Link, text, text), max_size=6).map(tuple),
    series=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=30).map(tuple),
    thread=text,
)


class Page(HTMLParser):
    """The tags, attributes and text that a browser would see."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in {"href", "src"}]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.text += data


def leaves(blocks) -> list[dict]:
    """Every object of a Slack message that carries text."""
    if isinstance(blocks, list):
        return [leaf for block in blocks for leaf in leaves(block)]
    if not isinstance(blocks, dict):
        return []
    own = [blocks] if isinstance(blocks.get("text"), str) else []
    return own + [leaf for value in blocks.values() for leaf in leaves(value)]


def assert_within_slack_limits(sent) -> None:
    assert len(sent["blocks"]) <= SLACK_BLOCKS
    assert len(sent["text"]) <= 40_000
    assert 0 < len(sent["blocks"][0]["text"]["text"]) <= SLACK_HEADER
    for leaf in leaves(sent["blocks"]):
        assert 0 < len(leaf["text"]) <= SLACK_TEXT or leaf["type"] == "link"
    assert len(json.dumps(sent)) < 100_000


@pytest.mark.parametrize("name", HOSTILE)
def test_slack_takes_no_name_for_markup(name: str):
    sent = slack_of(hostile(name))
    # Rich-text elements are never parsed; everywhere else the three signs that begin Slack's markup are escaped.
    assert {leaf["type"] for leaf in leaves(sent["blocks"])} <= {"text", "link", "plain_text"}
    for leaf in [*leaves(sent["blocks"]), {"type": "plain_text", "text": sent["text"]}]:
        if leaf["type"] == "plain_text":
            assert "<" not in leaf["text"]
            assert ">" not in leaf["text"]
    assert sent["mrkdwn"] is False


@pytest.mark.parametrize("name", HOSTILE)
def test_mail_takes_no_name_for_markup(name: str):
    page = Page(html_of(hostile(name)))
    assert "script" not in page.tags
    assert page.links == ["https://obs.example/"]
    assert plain(name) in page.text
    assert "{{ 7 * 7 }}" not in name or "49" not in page.text


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_adds_a_mail_header(name: str):
    sent = mail_of(hostile(name), "obs@example.org", ["a@example.org"], NOW)
    back = message_from_bytes(bytes(sent), policy=policy.default)
    assert back["Bcc"] is None
    assert back["To"] == "a@example.org"
    assert plain(name) in back["Subject"]


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://obs.example/x?y=1", True),
        ("http://localhost:3000/", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("https://", False),
        ("https://[bad", False),
        ("https://a.example/ b", False),
        ("https://a.example/\u202eb", False),
        ("/incidents/1", False),
    ],
)
def test_only_links_to_web_pages_are_shown(url: str, kept: bool):
    message = Message("k", "s", "info", links=(Link("Go", url),))
    assert bool(safe_links(message)) == kept
    assert (url in text_of(message)) == kept


@settings(max_examples=30)
@given(messages)
def test_any_message_can_be_sent_through_every_medium(message: Message):
    assert_within_slack_limits(slack_of(message))
    tags = Page(html_of(message)).tags
    assert "script" not in tags
    mail = mail_of(message, "obs@example.org", ["a@example.org"], NOW)
    back = message_from_bytes(bytes(mail), policy=policy.default)
    assert back.get_body(("plain",)) is not None
    assert len(text_of(message)) < 60_000


@given(st.text(max_size=400), st.integers(1, 200))
def test_a_name_becomes_one_line_of_visible_text(name: str, limit: int):
    line = plain(name, limit)
    assert len(line) <= limit
    assert line == line.strip()
    assert line.isprintable()
    assert plain(line, limit) == line


def test_five_hundred_incidents_are_one_readable_message():
    message = fleet(500)
    sent = slack_of(message)
    assert_within_slack_limits(sent)
    [listed] = [block for block in sent["blocks"][1:] if block["elements"][0]["type"] == "rich_text_list"]
    lines = listed["elements"][0]["elements"]
    assert len(lines) == SHOWN + 1
    assert lines[-1]["elements"][0]["text"] == "and 488 more"
    assert len(text_of(message).splitlines()) < 25
    assert "and 488 more" in Page(html_of(message)).text


def test_the_gravest_of_a_group_are_named_first():
    items = (*(Item(f"w{n}", "warning") for n in range(20)), Item("the bad one", "critical"))
    first = text_of(Message("k", "s", "critical", items=items)).splitlines()[0]
    assert first == "- critical: the bad one"


def test_a_group_is_summed_up_by_severity_and_place():
    items = fleet(500).items
    assert tally(items) == "20 critical, 480 warning"
    assert places(items, 2) == "project-0 (72), project-1 (72) and 5 more"


def test_a_mail_has_a_text_part_a_page_and_the_picture_inside():
    message = ordinary()
    back = message_from_bytes(bytes(mail_of(message, "obs@example.org", ["a@example.org"], NOW)), policy=policy.default)
    kinds = [part.get_content_type() for part in back.walk()]
    assert kinds == ["multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png"]
    [image] = [part for part in back.walk() if part.get_content_type() == "image/png"]
    html = back.get_body(("html",)).get_content()
    assert f"cid:{image['Content-ID'].strip('<>')}" in Page(html).links
    assert image.get_content() == message.picture.data
    assert "Observed  $31.00 an hour" in back.get_body(("plain",)).get_content()


def test_the_same_message_twice_is_the_same_mail_and_one_incident_is_one_thread():
    opened, again, resolved = (
        mail_of(ordinary(key), "obs@example.org", ["a@example.org"], NOW)
        for key in ("incident:42:opened", "incident:42:opened", "incident:42:resolved")
    )
    assert opened["Message-ID"] == again["Message-ID"] != resolved["Message-ID"]
    assert opened["References"] == resolved["References"]


def test_text_media_show_a_chart_of_bars():
    assert sparkline([1, 2, 3, 8]) == "▁▂▃█"
    assert sparkline([5, 5, 5]) == "▁▁▁"
    assert sparkline([5]) == ""
    assert sparkline([-1.7e308, 1.7e308]) == "▁█"
    assert "█" in text_of(ordinary())


def test_a_vector_picture_is_sent_as_what_it_is():
    message = Message("k", "s", "info", picture=Picture(b"<svg/>", "image/svg+xml"))
    back = message_from_bytes(bytes(mail_of(message, "a@b.c", ["d@e.f"], NOW)), policy=policy.default)
    assert [part.get_content_type() for part in back.walk()][-1] == "image/svg+xml"


values = st.none() | st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=12)
@given(st.lists(st.tuples(values, values, values), min_size=1, max_size=20))
def test_any_series_makes_a_picture_that_decodes(rows):
    columns = list(zip(*rows, strict=True))
    known = [value for column in columns for value in column if value is not None and abs(value) < float("inf")]
    if not known:
        with pytest.raises(ValueError, match="no value"):
            band_png(*columns)
        return
    png = band_png(*columns, marks=[0])
    assert struct.unpack(">II", png[16:24]) == (WIDTH, HEIGHT)
    start = png.index(b"IDAT") + 4
    assert len(zlib.decompress(png[start : png.index(b"IEND") - 8])) == HEIGHT * (WIDTH * 3 + 1)


def test_a_spike_rises_above_its_band_in_the_picture():
    flat, spike = [10.0] * 24, [10.0] * 23 + [40.0]
    quiet, loud = (band_png(values, [9.0] * 24, [11.0] * 24) for values in (flat, spike))
    assert quiet != loud
