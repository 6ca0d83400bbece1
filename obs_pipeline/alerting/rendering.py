"""How a message looks: in Slack, as mail, as plain text.

Holds ``Message`` (what is to be told, no markup), the limits of each medium, and the escaping. What is worth telling is
decided elsewhere; nothing is sent from here.

Everything in a message may come from data, so every string is text, never markup: names are stripped of characters
that cannot be seen, Slack gets rich-text elements (which it does not parse), HTML is escaped by the template engine,
and a link that is not http(s) is left out.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

import jinja2

from obs_pipeline.alerting.models import Severity

Json = dict[str, Any]

SHOWN: Final = 12
"""How many of a group's items a message names; of the others it gives the number."""

SLACK_BLOCKS: Final = 50
SLACK_HEADER: Final = 150
SLACK_TEXT: Final = 3000
_NAME: Final = 160
_BARS: Final = "▁▂▃▄▅▆▇█"
_COLOURS: Final[dict[Severity, str]] = {"info": "#2f80ed", "warning": "#c2410c", "critical": "#c81e1e"}
_SIGNS: Final[dict[Severity, str]] = {"info": "🔵", "warning": "🟠", "critical": "🔴"}
_OVER: Final = "✅"
_OVER_COLOUR: Final = "#15803d"


@dataclass(frozen=True)
class Fact:
    """One labelled value, both ready to be read."""

    label: str
    value: str


@dataclass(frozen=True)
class Link:
    """A link; shown only where the address is http or https."""

    label: str
    url: str


@dataclass(frozen=True)
class Item:
    """One incident in a group or digest: its headline, and a remark such as why it was held back."""

    title: str
    severity: Severity
    scope: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Picture:
    """A chart as bytes; ``media_type`` is ``image/png`` or ``image/svg+xml``."""

    data: bytes
    media_type: str = "image/png"
    description: str = "The series against its expected band"


@dataclass(frozen=True)
class Message:
    """What is told, once, to one receiver.

    ``lead`` is what a person needs to know first; ``steps`` are what to do about it, each with its command or an empty
    value. ``key`` is the idempotency key; ``thread`` is the same for everything said about one incident. ``series`` are
    the latest values, oldest first, for the small chart of text media.
    """

    key: str
    subject: str
    severity: Severity
    lead: str = ""
    steps: tuple[Fact, ...] = ()
    facts: tuple[Fact, ...] = ()
    items: tuple[Item, ...] = ()
    links: tuple[Link, ...] = ()
    series: tuple[float, ...] = ()
    picture: Picture | None = None
    thread: str = ""
    is_over: bool = False


def plain(text: str, limit: int = _NAME) -> str:
    """One line of visible text, at most ``limit`` characters: control and formatting characters become spaces."""
    visible = "".join(" " if unicodedata.category(sign) in _UNSEEN else sign for sign in text)
    return clipped(" ".join(visible.split()), limit)


_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def clipped(text: str, limit: int) -> str:
    """``text``, or its beginning and an ellipsis; never longer than ``limit``."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def sparkline(values: Sequence[float]) -> str:
    """One bar a value, from the smallest to the largest; empty for fewer than two values."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    # Halves are subtracted, so that the range stays finite at the ends of what a float can hold.
    reach = (high / 2 - low / 2) or 1.0
    return "".join(_BARS[round((value / 2 - low / 2) / reach * (len(_BARS) - 1))] for value in values)


def tally(items: Iterable[Item]) -> str:
    """``7 critical, 2 warning``, gravest first."""
    counts = Counter(item.severity for item in items)
    return ", ".join(f"{counts[name]:,} {name}" for name in ("critical", "warning", "info") if counts[name])


def places(items: Iterable[Item], limit: int = 5) -> str:
    """The scopes with the most items, ``acme/web (212), acme/etl (3)``, and how many more there are; only how many, where no
    place has two."""
    counts = Counter(plain(item.scope) for item in items if item.scope).most_common()
    if len(counts) > limit and counts[0][1] == 1:
        return f"{len(counts):,} places"
    named = ", ".join(f"{name} ({count:,})" for name, count in counts[:limit])
    return named + (f" and {len(counts) - limit:,} more" if len(counts) > limit else "")


def shown(items: Sequence[Item]) -> tuple[list[Item], int]:
    """The gravest ``SHOWN`` items in their order, and how many are not among them."""
    gravest = sorted(items, key=lambda item: ("critical", "warning", "info").index(item.severity))
    return gravest[:SHOWN], max(len(items) - SHOWN, 0)


def safe_links(message: Message) -> list[Link]:
    """The links that lead to a web page and nothing else."""
    return [Link(plain(link.label) or "Open", link.url) for link in message.links if _is_web(link.url)]


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    visible = all(unicodedata.category(sign) not in _UNSEEN for sign in url)
    return parts.scheme in {"http", "https"} and bool(parts.netloc) and visible and " " not in url and len(url) <= 2000


# -- text -------------------------------------------------------------------------------------------------------------


def text_of(message: Message) -> str:
    """The message as plain text: mail's text part, and every channel that knows no more."""
    named, others = shown(message.items)
    facts = [(plain(fact.label), plain(fact.value, 500)) for fact in message.facts]
    width = max((len(label) for label, _ in facts), default=0)
    paragraphs = [
        [plain(message.lead, SLACK_TEXT)],
        [f"> {label}{command and ': '}{command}" for label, command in _steps(message)],
        [f"{label:<{width}}  {value}" for label, value in facts],
        [sparkline(message.series)],
        [f"- {_item_line(item)}" for item in named] + ([f"- and {others:,} more"] if others else []),
        [f"{link.label}: {link.url}" for link in safe_links(message)],
    ]
    written = ("\n".join(line for line in lines if line) for lines in paragraphs)
    return "\n\n".join(paragraph for paragraph in written if paragraph) + "\n"


def _steps(message: Message) -> list[tuple[str, str]]:
    return [(plain(step.label), plain(step.value)) for step in message.steps]


def _item_line(item: Item) -> str:
    remark = f" ({plain(item.remark)})" if item.remark else ""
    return f"{item.severity}: {plain(item.title)}{remark}"


# -- Slack ------------------------------------------------------------------------------------------------------------


def slack_of(message: Message) -> Json:
    """The arguments of ``chat.postMessage`` or of an incoming webhook: blocks, and a text for the notification."""
    blocks = [
        _slack_header(message),
        *_slack_sections(message),
        *_slack_items(message),
        *_slack_links(message),
        _slack_footer(message),
    ]
    return {
        "text": _slack_escaped(clipped(f"{plain(message.subject)}. {plain(message.lead, SLACK_TEXT)}", SLACK_TEXT)),
        "blocks": blocks[:SLACK_BLOCKS],
        "mrkdwn": False,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _slack_header(message: Message) -> Json:
    # The sign first; escaping may lengthen the text fivefold, so it is clipped until it fits.
    subject = plain(message.subject, SLACK_HEADER - 2)
    while len(escaped := _slack_escaped(subject)) > SLACK_HEADER - 2:
        subject = clipped(subject, len(subject) - max((len(escaped) - SLACK_HEADER + 2) // 5, 1))
    return {
        "type": "header",
        "text": {"type": "plain_text", "text": f"{_sign(message)} {escaped}", "emoji": False},
    }


def _sign(message: Message) -> str:
    return _OVER if message.is_over else _SIGNS[message.severity]


def _slack_sections(message: Message) -> list[Json]:
    sections: list[Json] = []
    if message.lead:
        sections.append(_rich([_section([_text(plain(message.lead, SLACK_TEXT))])]))
    if message.steps:
        steps = [_section([_text(label + (command and ": ")), *_code(command)]) for label, command in _steps(message)]
        sections.append(_rich([{"type": "rich_text_list", "style": "bullet", "elements": steps}]))
    if message.facts:
        lines: list[Json] = []
        for fact in message.facts:
            lines += [_text(f"{plain(fact.label)}: ", bold=True), _text(plain(fact.value, 500) + "\n")]
        sections.append(_rich([_section(lines)]))
    if bars := sparkline(message.series):
        sections.append(_rich([{"type": "rich_text_preformatted", "elements": [_text(bars)]}]))
    return sections


def _slack_items(message: Message) -> list[Json]:
    named, others = shown(message.items)
    if not named:
        return []
    lines = [_section([_text(f"{_SIGNS[item.severity]} "), *_slack_item(item)]) for item in named]
    if others:
        lines.append(_section([_text(f"and {others:,} more")]))
    return [_rich([{"type": "rich_text_list", "style": "bullet", "elements": lines}])]


def _slack_item(item: Item) -> list[Json]:
    remark = [_text(f" ({plain(item.remark)})")] if item.remark else []
    return [_text(plain(item.title), bold=True), *remark]


def _slack_links(message: Message) -> list[Json]:
    parts: list[Json] = []
    for link in safe_links(message):
        parts += [{"type": "link", "url": link.url, "text": link.label}, _text("   ")]
    return [_rich([_section(parts[:-1])])] if parts else []


def _slack_footer(message: Message) -> Json:
    text = f"{_mood(message)} · {message.key}"
    return {
        "type": "context",
        "elements": [{"type": "plain_text", "text": _slack_escaped(plain(text)), "emoji": False}],
    }


def _rich(elements: list[Json]) -> Json:
    return {"type": "rich_text", "elements": elements}


def _section(elements: list[Json]) -> Json:
    return {"type": "rich_text_section", "elements": elements}


def _text(text: str, *, bold: bool = False) -> Json:
    # Slack refuses a whole message for one empty text.
    return {"type": "text", "text": text or "–", **({"style": {"bold": True}} if bold else {})}


def _code(text: str) -> list[Json]:
    return [{"type": "text", "text": text, "style": {"code": True}}] if text else []


def _slack_escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# -- mail -------------------------------------------------------------------------------------------------------------


def html_of(message: Message, picture_source: str = "") -> str:
    """The message as a page that mail programs render: tables and inline styles, nothing loaded from elsewhere.

    ``picture_source`` is the address of the picture, ``cid:…`` in a mail.
    """
    named, others = shown(message.items)
    return _template().render(
        subject=plain(message.subject),
        lead=plain(message.lead, SLACK_TEXT),
        steps=_steps(message),
        severity=_mood(message),
        colour=_OVER_COLOUR if message.is_over else _COLOURS[message.severity],
        facts=[(plain(fact.label), plain(fact.value, 500)) for fact in message.facts],
        items=[(plain(item.title), plain(item.remark), item.severity, _COLOURS[item.severity]) for item in named],
        others=others,
        links=safe_links(message),
        bars="" if picture_source else sparkline(message.series),
        picture=picture_source,
        description=message.picture.description if message.picture else "",
        key=plain(message.key),
    )


def mail_of(message: Message, sender: str, receivers: Sequence[str], now: datetime) -> EmailMessage:
    """A mail with a text part, an HTML part and the picture inside.

    ``Message-ID`` is made from the key, so that a repeat is the same mail to the programs that look; everything about
    one incident is one thread. ``now`` is UTC without a zone.
    """
    domain = sender.rpartition("@")[2] or "localhost"
    mail = EmailMessage()
    mail["Subject"] = plain(message.subject) if message.is_over else f"[{message.severity}] {plain(message.subject)}"
    mail["From"] = sender
    mail["To"] = ", ".join(receivers)
    mail["Date"] = format_datetime(now.replace(tzinfo=UTC))
    mail["Message-ID"] = f"<{_digest(message.key)}@{domain}>"
    if message.thread:
        mail["References"] = f"<{_digest(message.thread)}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Obs-Key"] = _digest(message.key)
    mail.set_content(text_of(message))
    cid = f"chart.{_digest(message.key)}@{domain}"
    mail.add_alternative(html_of(message, f"cid:{cid}" if message.picture else ""), subtype="html")
    if message.picture:
        [*_, html] = mail.iter_parts()
        kind, _, subtype = message.picture.media_type.partition("/")
        html.add_related(message.picture.data, kind, subtype, cid=f"<{cid}>", disposition="inline", filename="chart")
    return mail


def _mood(message: Message) -> str:
    return "resolved" if message.is_over else message.severity


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@cache
def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("obs_pipeline.alerting", "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("mail.html")
