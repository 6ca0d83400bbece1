"""Messages as the tests send them: an ordinary one, one made of hostile text, and one about a whole fleet."""

from __future__ import annotations

import math

from obs_pipeline.alerting.picture import band_png
from obs_pipeline.alerting.rendering import Fact, Item, Link, Message, Picture

HOSTILE = (
    "<!channel>",
    "</td><script>alert(1)</script>",
    "*bold* _it_ ~no~ `code`",
    "<https://evil.example|click>",
    "{{ 7 * 7 }}",
    "a\r\nBcc: someone@evil.example",
    "\u202egnp.exe",
    "@everyone",
    "&lt;b&gt;",
)


def series(length: int = 72) -> list[float]:
    usual = [10 + 3 * math.sin(hour / 4) for hour in range(length)]
    return [*usual[:-6], 31.0, 29.5, 27.0, 26.0, 18.0, 12.0]


def picture() -> Picture:
    values = series()
    usual = [10 + 3 * math.sin(hour / 4) for hour in range(len(values))]
    png = band_png(values, [value - 3 for value in usual], [value + 4 for value in usual], [66, 67, 68, 69])
    return Picture(png)


def ordinary(key: str = "incident:42:opened") -> Message:
    return Message(
        key=key,
        subject="Cost of acme/web/support-bot is 3.1 times the usual",
        severity="critical",
        lead="Six hours above the band since 14:00 UTC. Most of it is one model: large-1 (87 %).",
        facts=(
            Fact("Agent", "acme/web/support-bot"),
            Fact("Observed", "$31.00 an hour"),
            Fact("Expected", "$10.00 (band $7.00 to $14.00)"),
            Fact("Began", "2026-11-23 14:00 UTC"),
        ),
        links=(Link("Open the incident", "https://obs.example/incidents/42"),),
        series=tuple(series()[-24:]),
        picture=picture(),
        thread="incident:42",
    )


def hostile(text: str) -> Message:
    return Message(
        key=f"incident:{text}",
        subject=f"Cost of {text} rose",
        severity="warning",
        lead=f"It is {text}.",
        facts=(Fact("Agent", text),),
        items=(Item(text, "warning", scope=text, remark=text),),
        links=(Link(text, "https://obs.example/"), Link("bad", "javascript:alert(1)"), Link("worse", text)),
    )


def fleet(count: int = 500) -> Message:
    items = tuple(
        Item(
            f"Errors of acme/project-{n % 7}/agent-{n:03d}",
            "critical" if n % 25 == 0 else "warning",
            f"project-{n % 7}",
        )
        for n in range(count)
    )
    return Message(
        key="group:fleet:opened",
        subject=f"{count} incidents: errors in 7 projects",
        severity="critical",
        lead="20 critical, 480 warning. Most in project-0 (72).",
        items=items,
        links=(Link("All of them", "https://obs.example/incidents?state=open"),),
    )
