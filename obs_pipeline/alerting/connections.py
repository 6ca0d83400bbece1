"""From a receiver's options to the channel or tracker that serves it.

Holds which options each takes and how secrets are looked up: an option such as ``webhook: OBS_SLACK_WEBHOOK`` names a
variable, and ``secret_of`` answers its value. Nothing is opened or sent here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import SecretStr

from obs_pipeline.alerting.channels import (
    SLACK_API,
    AppriseChannel,
    Channel,
    ChannelError,
    MailChannel,
    MailServer,
    SlackBot,
    SlackWebhook,
    WidgetChannel,
)
from obs_pipeline.alerting.models import Receiver
from obs_pipeline.alerting.trackers import GitHubTracker, JiraTracker, LedgerTracker, RedmineTracker, TaskTracker

SecretOf = Callable[[str], str | None]
"""The value of a variable by its name; None when it is not set."""

DEFAULT_MAIL_SERVER: Final = "OBS_SMTP_URL"
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

CHANNEL_OPTIONS: Final[Mapping[str, tuple[frozenset[str], ...]]] = {
    "widget": (frozenset(),),
    "slack": (frozenset({"webhook"}), frozenset({"token", "channel"})),
    "email": (frozenset({"to"}),),
    "apprise": (frozenset({"url"}),),
}
"""The channels by name, and what each needs: all of one of the sets."""

TRACKER_OPTIONS: Final[Mapping[str, frozenset[str]]] = {
    "ledger": frozenset(),
    "github": frozenset({"repository", "token"}),
    "jira": frozenset({"base_url", "project", "email", "token"}),
    "redmine": frozenset({"base_url", "project", "key"}),
}
"""The trackers by name, and the options each needs."""


_NAMES_OF_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "slack": ("webhook", "token"),
    "email": ("server",),
    "apprise": ("url",),
    "github": ("token",),
    "jira": ("token",),
    "redmine": ("key",),
}
"""The options of channels and trackers that name where a secret is."""


def missing_options(channel: str, options: Mapping[str, Any]) -> str | None:
    """What is wrong with a receiver's options, in words; None when nothing is. Secrets are not looked up."""
    tracker = str(options.get("tracker") or "ledger")
    given = {name for name, value in options.items() if value}
    if channel == "task":
        if tracker not in TRACKER_OPTIONS:
            return f"there is no task tracker {tracker!r}; there are {', '.join(TRACKER_OPTIONS)}"
        ways: tuple[frozenset[str], ...] = (TRACKER_OPTIONS[tracker],)
    elif channel in CHANNEL_OPTIONS:
        ways = CHANNEL_OPTIONS[channel]
    else:
        return f"there is no channel {channel!r}; there are {', '.join((*CHANNEL_OPTIONS, 'task'))}"
    kind = tracker if channel == "task" else channel
    for name in _NAMES_OF_VARIABLES.get(kind, ()):
        if name in given and not str(options[name]).isidentifier():
            # It may be the secret itself, so it is not repeated.
            return f"{name} must be the name of a variable that holds the secret, such as OBS_SLACK_WEBHOOK"
    if any(way <= given for way in ways):
        return None
    return "it needs " + ", or ".join(" and ".join(sorted(way)) for way in ways)


def channel_for(receiver: Receiver, secret_of: SecretOf) -> Channel:
    """The channel of a receiver.

    Raises:
        ChannelError: an option is missing, or the variable it names is not set.
    """
    _check(receiver)
    options = receiver.options
    if receiver.channel == "slack":
        if options.get("webhook"):
            return SlackWebhook(_secret(receiver, "webhook", secret_of))
        return SlackBot(
            _secret(receiver, "token", secret_of), str(options["channel"]), str(options.get("base_url") or SLACK_API)
        )
    if receiver.channel == "email":
        to = options["to"]
        receivers = (to,) if isinstance(to, str) else tuple(str(address) for address in to)
        server = _mail_server(receiver, str(options.get("server") or DEFAULT_MAIL_SERVER), secret_of)
        sender = server.user if "@" in server.user else f"obs-pipeline@{server.host}"
        return MailChannel(server, str(options.get("from") or sender), receivers)
    if receiver.channel == "apprise":
        return AppriseChannel(_secret(receiver, "url", secret_of))
    return WidgetChannel()


def tracker_for(receiver: Receiver, secret_of: SecretOf) -> TaskTracker:
    """The task tracker of a receiver whose channel is ``task``.

    Raises:
        ChannelError: an option is missing, or the variable it names is not set.
    """
    _check(receiver)
    options = {name: str(value) for name, value in receiver.options.items() if isinstance(value, str)}
    match options.get("tracker", "ledger"):
        case "github":
            token = _secret(receiver, "token", secret_of)
            return GitHubTracker(options["repository"], token, options.get("base_url", "https://api.github.com"))
        case "jira":
            token = _secret(receiver, "token", secret_of)
            return JiraTracker(options["base_url"], options["project"], options["email"], token)
        case "redmine":
            return RedmineTracker(options["base_url"], options["project"], _secret(receiver, "key", secret_of))
        case _:
            return LedgerTracker()


def _check(receiver: Receiver) -> None:
    if wrong := missing_options(receiver.channel, receiver.options):
        raise ChannelError(f"Receiver {receiver.name!r} cannot be used: {wrong}.")


def _secret(receiver: Receiver, option: str, secret_of: SecretOf) -> SecretStr:
    return _variable(receiver, str(receiver.options[option]), secret_of)


def _variable(receiver: Receiver, variable: str, secret_of: SecretOf) -> SecretStr:
    value = secret_of(variable)
    if not value:
        raise ChannelError(f"Receiver {receiver.name!r} cannot be used: the variable {variable} is not set.")
    return SecretStr(value)


def _mail_server(receiver: Receiver, variable: str, secret_of: SecretOf) -> MailServer:
    """From ``smtp://user:password@host:port``: encrypted by STARTTLS except on loopback; ``smtps`` is TLS at once."""
    value = _variable(receiver, variable, secret_of).get_secret_value()
    form = f"Receiver {receiver.name!r}: {variable} must look like smtp://user:password@host:587 or smtps://…:465."
    try:
        parts: SplitResult = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ChannelError(form) from None
    if parts.scheme not in {"smtp", "smtps"} or not host:
        raise ChannelError(form)
    user, password = unquote(parts.username or ""), SecretStr(unquote(parts.password or ""))
    if parts.scheme == "smtps":
        return MailServer(host, port or 465, user, password, "tls")
    if host in _LOOPBACK:
        return MailServer(host, port or 25, user, password, "none")
    return MailServer(host, port or 587, user, password, "starttls")
