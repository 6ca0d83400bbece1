"""Channels: how a message leaves the house, and what the other side answered.

Holds the port and its adapters: the dashboard, Slack (webhook or bot), mail, and Apprise for everything else. A channel
tries once and never raises for what the other side does; when to try again belongs to ``delivery``. Secrets come in as
values and are in no ``repr``, reason or log.
"""

from __future__ import annotations

import logging
import re
import smtplib
import ssl
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from http.client import HTTPException
from typing import Any, Final, Literal, Protocol

from pydantic import SecretStr

from obs_pipeline.alerting.models import Delivery, Refused, RetryAfter, Sent
from obs_pipeline.alerting.rendering import Message, mail_of, plain, slack_of, text_of
from obs_pipeline.alerting.wire import TIMEOUT_SECONDS, outcome_of, pieces_of, scrubbed
from obs_pipeline.errors import ObsError

SLACK_API: Final = "https://slack.com/api/"
_SLACK_PASSING: Final = frozenset(
    {"ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"}
)
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class ChannelError(ObsError):
    """A channel is configured in a way that cannot work; the message says what to change."""


class Channel(Protocol):
    """Where messages go. ``now`` is UTC without a zone."""

    def send(self, message: Message, now: datetime) -> Delivery:
        """Try once. ``Sent`` means the other side took it."""


@dataclass(frozen=True)
class WidgetChannel:
    """The dashboard: the record of the notification in the ledger is what it shows."""

    def send(self, message: Message, now: datetime) -> Delivery:
        return Sent()


@dataclass(frozen=True)
class SlackWebhook:
    """An incoming webhook, which belongs to one Slack channel. ``url`` is the secret."""

    url: SecretStr
    timeout: float = TIMEOUT_SECONDS

    def send(self, message: Message, now: datetime) -> Delivery:
        from slack_sdk.errors import SlackRequestError
        from slack_sdk.webhook import WebhookClient

        client = WebhookClient(
            self.url.get_secret_value(),
            timeout=self.timeout,  # type: ignore[arg-type]  # a fraction of a second is fine for a socket
            retry_handlers=[],
            logger=_silent_logger(),
        )
        try:
            answer = client.send_dict(slack_of(message))
        except (OSError, HTTPException) as error:
            return _no_answer(error)
        except (SlackRequestError, ValueError) as error:
            return Refused(f"the webhook address cannot be used ({type(error).__name__})")
        detail = scrubbed(str(answer.body), [self.url])
        outcome = outcome_of(answer.status_code, dict(answer.headers.items()), detail, now)
        if outcome is None and answer.body.strip() != "ok":
            return RetryAfter(reason="something other than Slack answered", seconds=None)
        return outcome or Sent()


@dataclass(frozen=True)
class SlackBot:
    """A Slack app's bot, which may post in ``channel``; the picture goes into the thread of its message."""

    token: SecretStr
    channel: str
    base_url: str = SLACK_API
    timeout: float = TIMEOUT_SECONDS

    def send(self, message: Message, now: datetime) -> Delivery:
        from slack_sdk.errors import SlackApiError, SlackClientError

        client = self._client()
        try:
            answer = client.chat_postMessage(channel=self.channel, parse="none", link_names=False, **slack_of(message))
        except SlackApiError as error:
            return self._failed(error.response, now)
        except (OSError, HTTPException) as error:
            return _no_answer(error)
        except (SlackClientError, ValueError) as error:
            return Refused(f"Slack cannot be asked ({type(error).__name__})")
        if message.picture and message.picture.media_type == "image/png":
            self._add_picture(client, message, str(answer["channel"]), str(answer["ts"]))
        return Sent(remote_id=str(answer["ts"]))

    def _client(self) -> Any:
        from slack_sdk import WebClient

        return WebClient(
            self.token.get_secret_value(),
            base_url=self.base_url,
            timeout=self.timeout,  # type: ignore[arg-type]  # as above
            retry_handlers=[],
            logger=_silent_logger(),
        )

    def _failed(self, answer: Any, now: datetime) -> Delivery:
        said = answer.data.get("error", "") if isinstance(answer.data, dict) else str(answer.data)
        detail = scrubbed(str(said), [self.token])
        outcome = outcome_of(answer.status_code, dict(answer.headers), detail, now)
        if outcome is not None:
            return outcome
        if not re.fullmatch(r"[a-z0-9_]+", str(said)):
            return RetryAfter(reason="something other than Slack answered", seconds=None)
        if said in _SLACK_PASSING:
            return RetryAfter(reason=detail, seconds=None)
        return Refused(detail)

    def _add_picture(self, client: Any, message: Message, channel: str, thread: str) -> None:
        """A message without its picture has still arrived, so what goes wrong here is left alone."""
        from slack_sdk.errors import SlackClientError

        picture = message.picture
        try:
            client.files_upload_v2(
                channel=channel,
                thread_ts=thread,
                content=picture.data if picture else b"",
                filename="chart.png",
                title=plain(message.subject),
                alt_txt=picture.description if picture else None,
            )
        except (SlackClientError, OSError, HTTPException, ValueError, KeyError):
            return


@dataclass(frozen=True)
class MailServer:
    """Where mail is handed in. ``security`` is ``starttls`` (port 587), ``tls`` (465) or ``none`` (loopback, 25)."""

    host: str
    port: int = 587
    user: str = ""
    password: SecretStr = field(default=SecretStr(""))
    security: Literal["starttls", "tls", "none"] = "starttls"

    def __post_init__(self) -> None:
        if self.user and self.security == "none" and self.host not in _LOOPBACK:
            raise ChannelError(
                f"Mail through {self.host} would send its password in the clear: set security to starttls or tls."
            )


@dataclass(frozen=True)
class MailChannel:
    """Mail by SMTP: a text part, an HTML part, the picture inside."""

    server: MailServer
    sender: str
    receivers: tuple[str, ...]
    timeout: float = TIMEOUT_SECONDS

    def send(self, message: Message, now: datetime) -> Delivery:
        try:
            mail = mail_of(message, self.sender, self.receivers, now)
        except (ValueError, IndexError) as error:
            return Refused(f"no mail can be written to these addresses ({type(error).__name__})")
        try:
            connection = self._connect()
            try:
                refused = connection.send_message(mail, self.sender, list(self.receivers))
                self._say_goodbye(connection)
            finally:
                connection.close()
        except smtplib.SMTPException as error:
            return self._failed(error)
        except ssl.SSLCertVerificationError:
            return Refused(f"the certificate of {self.server.host} is not trusted")
        except OSError as error:
            return _no_answer(error)
        note = f"refused for {', '.join(sorted(refused))}" if refused else ""
        return Sent(remote_id=mail["Message-ID"] if not note else f"{mail['Message-ID']} ({note})")

    def _connect(self) -> smtplib.SMTP:
        server, ours = self.server, "[127.0.0.1]"  # the name of this machine may take a slow look-up
        if server.security == "tls":
            context = ssl.create_default_context()
            connection: smtplib.SMTP = smtplib.SMTP_SSL(
                server.host, server.port, ours, timeout=self.timeout, context=context
            )
        else:
            connection = smtplib.SMTP(server.host, server.port, ours, timeout=self.timeout)
        try:
            if server.security == "starttls":
                connection.starttls(context=ssl.create_default_context())
            if server.user:
                connection.login(server.user, server.password.get_secret_value())
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _say_goodbye(connection: smtplib.SMTP) -> None:
        """The mail was taken before this; how the conversation ends changes nothing."""
        try:
            connection.quit()
        except (smtplib.SMTPException, OSError):
            return

    def _failed(self, error: smtplib.SMTPException) -> Delivery:
        if isinstance(error, smtplib.SMTPServerDisconnected):
            return _no_answer(error)
        if isinstance(error, smtplib.SMTPRecipientsRefused):
            answers = list(error.recipients.values())
            code: int
            said: bytes | str
            code, said = next((answer for answer in answers if answer[0] < 500), answers[0])
        elif isinstance(error, smtplib.SMTPResponseException):
            code, said = error.smtp_code, error.smtp_error
        else:
            return Refused(scrubbed(f"{type(error).__name__}: {error}", [self.server.password]))
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        reason = scrubbed(f"SMTP {code}: {text}", [self.server.password])
        return RetryAfter(reason=reason, seconds=None) if code < 500 else Refused(reason)


@dataclass(frozen=True)
class AppriseChannel:
    """Any of the services that Apprise reaches. ``url`` is the secret; it must name one service.

    Apprise gives no status and no ``Retry-After``: whatever failed is tried again, except where its log names a
    client error. Nothing of that log is kept, because it may quote the address.
    """

    url: SecretStr
    timeout: float = 2 * TIMEOUT_SECONDS

    def send(self, message: Message, now: datetime) -> Delivery:
        import apprise

        _redaction().learn(self.url)
        service = apprise.Apprise(asset=apprise.AppriseAsset(secure_logging=True, async_mode=False))
        if not service.add(self.url.get_secret_value()) or len(service) != 1:
            return Refused("Apprise knows no single service by this address")
        kinds = {
            "info": apprise.NotifyType.INFO,
            "warning": apprise.NotifyType.WARNING,
            "critical": apprise.NotifyType.FAILURE,
        }
        result = service.notify(
            body=text_of(message),
            title=plain(message.subject),
            notify_type=kinds[message.severity],
            body_format=apprise.NotifyFormat.TEXT,
            interpret_escapes=False,
            timeout=self.timeout,
        )
        if result:
            return Sent()
        return self._failed(result.status.name, " ".join(entry.message for entry in result.logs()))

    @staticmethod
    def _failed(status: str, log: str) -> Delivery:
        found = re.search(r"error=(\d{3})", log)
        code = int(found[1]) if found else 0
        reason = f"Apprise: {status.lower()}" + (f", HTTP {code}" if code else "")
        if 400 <= code < 500 and code not in {408, 425, 429}:
            return Refused(reason)
        return RetryAfter(reason=reason, seconds=None)


def _no_answer(error: Exception) -> RetryAfter:
    # Only the kind: the text of an error may quote the address, and an address may be the secret.
    cause = getattr(error, "reason", None)
    kind = type(cause if isinstance(cause, Exception) else error).__name__
    return RetryAfter(reason=f"no answer ({kind})", seconds=None)


class _Redaction(logging.Filter):
    """Takes secrets out of log records before any handler sees them."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: set[str] = set()

    def learn(self, secret: SecretStr) -> None:
        self._pieces.update(pieces_of([secret]))

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        for piece in sorted(self._pieces, key=len, reverse=True):
            text = text.replace(piece, "***")
        record.msg, record.args, record.exc_info = text, (), None
        return True


@cache
def _redaction() -> _Redaction:
    """Apprise and the HTTP client under it log the addresses they call, from threads of their own."""
    redaction = _Redaction()
    for name in ("apprise", "urllib3.connectionpool"):
        logging.getLogger(name).addFilter(redaction)
    return redaction


@cache
def _silent_logger() -> logging.Logger:
    """A logger that writes nothing: the Slack client logs the address it calls, and that is the secret."""
    logger = logging.getLogger("obs_pipeline.alerting.slack")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    logger.setLevel(logging.CRITICAL + 1)
    return logger
