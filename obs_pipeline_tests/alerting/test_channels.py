"""What channels send to real servers, and what they make of every way a server can answer."""

from __future__ import annotations

import logging
import socket
from datetime import datetime

import pytest
from pydantic import SecretStr

from obs_pipeline.alerting.channels import (
    AppriseChannel,
    ChannelError,
    MailChannel,
    MailServer,
    SlackBot,
    SlackWebhook,
    WidgetChannel,
)
from obs_pipeline.alerting.connections import channel_for, missing_options, tracker_for
from obs_pipeline.alerting.models import Receiver, Refused, RetryAfter, Sent
from obs_pipeline.alerting.wire import outcome_of, retry_after_seconds, scrubbed
from obs_pipeline_tests.alerting.loopback import Answer, http_server, mail_server
from obs_pipeline_tests.alerting.messages import HOSTILE, fleet, hostile, ordinary

NOW = datetime(2026, 11, 24, 9, 30)
SECRET = "xoxb-very-secret"


def webhook(url: str, timeout: float = 0.3) -> SlackWebhook:
    return SlackWebhook(SecretStr(f"{url}/services/{SECRET}"), timeout)


def bot(url: str) -> SlackBot:
    return SlackBot(SecretStr(SECRET), "#ops", f"{url}/api/", 0.3)


def mail(port: int, *receivers: str) -> MailChannel:
    return MailChannel(MailServer("127.0.0.1", port, security="none"), "obs@example.org", receivers, 0.5)


def json_webhook(url: str) -> AppriseChannel:
    return AppriseChannel(SecretStr(url.replace("http://", "json://") + f"/{SECRET}"), 2.0)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_the_dashboard_takes_everything():
    assert WidgetChannel().send(ordinary(), NOW) == Sent()


def test_a_webhook_gets_blocks_and_a_text():
    with http_server() as server:
        assert webhook(server.url).send(ordinary(), NOW) == Sent()
    [request] = server.requests
    assert request.path == f"/services/{SECRET}"
    assert request.json["blocks"][0]["text"]["text"].endswith("Cost of acme/web/support-bot is 3.1 times the usual")
    assert request.json["text"].startswith("Cost of acme")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_arrive_as_text(name: str):
    with http_server() as server, mail_server() as (mailbox, port):
        assert webhook(server.url).send(hostile(name), NOW) == Sent()
        assert isinstance(mail(port, "a@example.org").send(hostile(name), NOW), Sent)
    assert "<!channel>" not in server.requests[0].json["text"]
    assert mailbox.receivers == [["a@example.org"]]
    assert "<script" not in mailbox.mails[0].get_body(("html",)).get_content()


ANSWERS = [
    (Answer(500, "server_error"), RetryAfter(None, "HTTP 500: server_error")),
    (Answer(429, "rate_limited", {"Retry-After": "17"}), RetryAfter(17.0, "HTTP 429: rate_limited")),
    (Answer(404, "no_service"), Refused("HTTP 404: no_service")),
    (Answer(400, "invalid_payload"), Refused("HTTP 400: invalid_payload")),
    (Answer(200, "<html>Sign in to the airport Wi-Fi</html>"), RetryAfter(None, "something other than Slack answered")),
    (Answer(drop=True), RetryAfter(None, "no answer (RemoteDisconnected)")),
    (Answer(delay=1.0), RetryAfter(None, "no answer (TimeoutError)")),
]


@pytest.mark.parametrize(("answer", "outcome"), ANSWERS)
def test_a_webhook_tells_what_may_be_tried_again_from_what_may_not(answer: Answer, outcome):
    with http_server(answer) as server:
        assert webhook(server.url).send(ordinary(), NOW) == outcome
        assert len(server.requests) == 1


def test_a_bot_posts_and_puts_the_picture_into_the_thread():
    def slack(request):
        if request.path == "/api/chat.postMessage":
            return Answer(body={"ok": True, "channel": "C1", "ts": "1700.1"})
        if request.path == "/api/files.getUploadURLExternal":
            return Answer(body={"ok": True, "upload_url": f"{server.url}/upload", "file_id": "F1"})
        if request.path == "/api/files.completeUploadExternal":
            return Answer(body={"ok": True, "files": [{"id": "F1"}]})
        return Answer(body="OK - 1")

    with http_server(slack) as server:
        assert bot(server.url).send(ordinary(), NOW) == Sent("1700.1")
    posted, _, uploaded, completed = server.requests
    assert posted.headers["Authorization"] == f"Bearer {SECRET}"
    assert posted.json["channel"] == "#ops"
    assert ordinary().picture.data in uploaded.body
    assert "1700.1" in completed.body.decode()


def test_a_message_without_its_picture_has_still_arrived():
    def slack(request):
        if request.path == "/api/chat.postMessage":
            return Answer(body={"ok": True, "channel": "C1", "ts": "1700.1"})
        return Answer(500, "no")

    with http_server(slack) as server:
        assert bot(server.url).send(ordinary(), NOW) == Sent("1700.1")


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer(body={"ok": False, "error": "channel_not_found"}), Refused("channel_not_found")),
        (Answer(body={"ok": False, "error": "invalid_auth"}), Refused("invalid_auth")),
        (Answer(body={"ok": False, "error": "internal_error"}), RetryAfter(None, "internal_error")),
        (
            Answer(429, {"ok": False, "error": "ratelimited"}, {"Retry-After": "30"}),
            RetryAfter(30.0, "HTTP 429: ratelimited"),
        ),
        (Answer(drop=True), RetryAfter(None, "no answer (RemoteDisconnected)")),
        (Answer(delay=1.0), RetryAfter(None, "no answer (TimeoutError)")),
    ],
)
def test_a_bot_tells_what_may_be_tried_again_from_what_may_not(answer: Answer, outcome):
    with http_server(answer) as server:
        assert bot(server.url).send(fleet(), NOW) == outcome


@pytest.mark.parametrize("answer", [Answer(503, "<html>down</html>"), Answer(200, "not json")])
def test_a_bot_is_not_upset_by_an_answer_that_is_not_json(answer: Answer):
    with http_server(answer) as server:
        assert isinstance(bot(server.url).send(ordinary(), NOW), RetryAfter)


def test_a_mail_arrives_with_text_page_and_picture():
    with mail_server() as (mailbox, port):
        outcome = mail(port, "a@example.org", "b@example.org").send(ordinary(), NOW)
    [received] = mailbox.mails
    assert outcome == Sent(received["Message-ID"])
    assert mailbox.receivers == [["a@example.org", "b@example.org"]]
    assert [part.get_content_type() for part in received.walk()][-1] == "image/png"


def test_a_mail_that_one_of_two_people_cannot_get_is_not_sent_again_to_the_other():
    with mail_server() as (mailbox, port):
        mailbox.refuse["gone@example.org"] = "550 no such user"
        outcome = mail(port, "gone@example.org", "b@example.org").send(ordinary(), NOW)
    assert isinstance(outcome, Sent)
    assert "gone@example.org" in outcome.remote_id
    assert mailbox.receivers == [["b@example.org"]]


@pytest.mark.parametrize(
    ("where", "line", "outcome"),
    [
        ("a@example.org", "550 no such user", Refused("SMTP 550: no such user")),
        ("a@example.org", "451 try later", RetryAfter(None, "SMTP 451: try later")),
        ("DATA", "554 looks like spam", Refused("SMTP 554: looks like spam")),
        ("DATA", "452 disk full", RetryAfter(None, "SMTP 452: disk full")),
    ],
)
def test_mail_tells_what_may_be_tried_again_from_what_may_not(where: str, line: str, outcome):
    with mail_server() as (mailbox, port):
        mailbox.refuse[where] = line
        assert mail(port, "a@example.org").send(ordinary(), NOW) == outcome
    assert mailbox.mails == []


def test_no_mail_server_and_a_silent_one_are_tried_again(closed_port: int):
    assert mail(closed_port, "a@example.org").send(ordinary(), NOW) == RetryAfter(
        None, "no answer (ConnectionRefusedError)"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        outcome = mail(silent.getsockname()[1], "a@example.org").send(ordinary(), NOW)
    assert outcome == RetryAfter(None, "no answer (SMTPServerDisconnected)")


def test_an_address_that_is_none_is_refused():
    with mail_server() as (_, port):
        assert isinstance(mail(port, "a@b\r\nBcc: c@d").send(ordinary(), NOW), Refused)


def test_a_password_is_not_sent_in_the_clear():
    with pytest.raises(ChannelError, match="set security to starttls or tls"):
        MailServer("mail.example.org", 25, "me", SecretStr("pw"), "none")


def test_apprise_reaches_the_rest():
    with http_server() as server:
        assert json_webhook(server.url).send(ordinary(), NOW) == Sent()
    [request] = server.requests
    assert request.json["title"] == "Cost of acme/web/support-bot is 3.1 times the usual"
    assert "Observed  $31.00 an hour" in request.json["message"]
    assert request.json["type"] == "failure"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer(500, "x"), RetryAfter(None, "Apprise: failure, HTTP 500")),
        (Answer(429, "x"), RetryAfter(None, "Apprise: failure, HTTP 429")),
        (Answer(403, "x"), Refused("Apprise: failure, HTTP 403")),
        (Answer(drop=True), RetryAfter(None, "Apprise: failure")),
    ],
)
def test_apprise_tells_what_may_be_tried_again_from_what_may_not(answer: Answer, outcome):
    with http_server(answer) as server:
        assert json_webhook(server.url).send(ordinary(), NOW) == outcome
        assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["nosuch://x", "", "not a url"])
def test_an_address_that_apprise_does_not_know_is_refused(url: str):
    assert AppriseChannel(SecretStr(url)).send(ordinary(), NOW) == Refused(
        "Apprise knows no single service by this address"
    )


def test_no_secret_is_in_a_reason_a_repr_or_a_log(caplog: pytest.LogCaptureFixture, capfd, closed_port: int):
    caplog.set_level(logging.DEBUG)
    echo = Answer(400, f"bad token {SECRET}")
    with http_server(echo) as server:
        channels = [
            webhook(server.url),
            bot(server.url),
            json_webhook(server.url),
            webhook(f"http://127.0.0.1:{closed_port}"),
            webhook("ftp://nowhere"),
            SlackWebhook(SecretStr(f"http://[bad/{SECRET}")),
            json_webhook(f"http://127.0.0.1:{closed_port}"),
            MailChannel(MailServer("127.0.0.1", closed_port, "me", SecretStr(SECRET)), "a@b.c", ("d@e.f",)),
        ]
        said = [f"{channel!r} {channel.send(ordinary(), NOW)!r}" for channel in channels]
    assert len(server.requests) == 3
    printed = capfd.readouterr()
    for text in (*said, caplog.text, printed.out, printed.err):
        assert SECRET not in text


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("1e9", 86400.0),
        ("Tue, 24 Nov 2026 09:31:00 GMT", 60.0),
        ("Tue, 24 Nov 2026 09:00:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        (None, None),
    ],
)
def test_retry_after_is_read_in_seconds_or_as_a_date(value: str | None, seconds: float | None):
    assert retry_after_seconds(value, NOW) == seconds


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (200, {}, None),
        (204, {}, None),
        (302, {}, Refused),
        (400, {}, Refused),
        (401, {}, Refused),
        (403, {}, Refused),
        (403, {"X-RateLimit-Remaining": "0"}, RetryAfter),
        (403, {"retry-after": "60"}, RetryAfter),
        (408, {}, RetryAfter),
        (429, {}, RetryAfter),
        (500, {}, RetryAfter),
        (503, {}, RetryAfter),
    ],
)
def test_a_status_decides_whether_to_try_again(status: int, headers: dict[str, str], kind):
    outcome = outcome_of(status, headers, "", NOW)
    assert outcome is None if kind is None else isinstance(outcome, kind)


def test_what_is_noted_of_an_answer_is_short_and_without_secrets():
    noted = scrubbed(f"line\n{SECRET} " + "x" * 1000, [SecretStr(SECRET), SecretStr("")])
    assert noted.startswith("line *** x")
    assert len(noted) == 300


SECRETS = {
    "HOOK": "https://hooks.slack.example/T/B/x",
    "TOKEN": "t",
    "MAIL": "smtp://me:p%40ss@mail.example.org",
    "MAILS": "smtps://mail.example.org",
    "LOCAL": "smtp://localhost:2525",
    "BAD": "mail.example.org:25",
}


@pytest.mark.parametrize(
    ("channel", "options", "expected"),
    [
        ("widget", {}, WidgetChannel()),
        ("slack", {"webhook": "HOOK"}, SlackWebhook(SecretStr(SECRETS["HOOK"]))),
        ("slack", {"token": "TOKEN", "channel": "#ops"}, SlackBot(SecretStr("t"), "#ops")),
        ("apprise", {"url": "TOKEN"}, AppriseChannel(SecretStr("t"))),
        (
            "email",
            {"to": "a@b.c", "from": "o@b.c", "server": "MAIL"},
            MailChannel(MailServer("mail.example.org", 587, "me", SecretStr("p@ss"), "starttls"), "o@b.c", ("a@b.c",)),
        ),
        (
            "email",
            {"to": ["a@b.c", "d@e.f"], "from": "o@b.c", "server": "MAILS"},
            MailChannel(MailServer("mail.example.org", 465, security="tls"), "o@b.c", ("a@b.c", "d@e.f")),
        ),
        (
            "email",
            {"to": "a@b.c", "server": "LOCAL"},
            MailChannel(MailServer("localhost", 2525, security="none"), "obs-pipeline@localhost", ("a@b.c",)),
        ),
    ],
)
def test_a_receiver_becomes_its_channel(channel: str, options, expected):
    assert channel_for(Receiver("ops", channel, options), SECRETS.get) == expected


@pytest.mark.parametrize(
    ("channel", "options", "words"),
    [
        ("pigeon", {}, "there is no channel 'pigeon'; there are widget, slack, email, apprise, task"),
        ("slack", {"token": "TOKEN"}, "it needs webhook, or channel and token"),
        ("email", {"from": "a@b.c"}, "it needs to"),
        ("slack", {"webhook": "UNSET"}, "the variable UNSET is not set"),
        ("slack", {"webhook": SECRETS["HOOK"]}, "webhook must be the name of a variable"),
        ("email", {"to": "a@b.c", "from": "d@e.f", "server": "BAD"}, "BAD must look like smtp://"),
        ("task", {"tracker": "trello"}, "there is no task tracker 'trello'"),
        ("task", {"tracker": "github", "token": "TOKEN"}, "it needs repository and token"),
    ],
)
def test_a_receiver_that_cannot_work_says_what_to_change(channel: str, options, words: str):
    make = tracker_for if channel == "task" else channel_for
    with pytest.raises(ChannelError, match="ops") as failure:
        make(Receiver("ops", channel, options), SECRETS.get)
    assert words in str(failure.value)
    assert SECRETS["HOOK"] not in str(failure.value)


@pytest.mark.parametrize("tracker", ["ledger", "github", "jira", "redmine"])
def test_a_task_receiver_becomes_its_tracker(tracker: str):
    options = {
        "tracker": tracker,
        "repository": "acme/ops",
        "base_url": "https://tracker.example",
        "project": "OPS",
        "email": "a@b.c",
        "token": "TOKEN",
        "key": "TOKEN",
    }
    assert missing_options("task", options) is None
    assert tracker_for(Receiver("tasks", "task", options), SECRETS.get).name == tracker
