"""What each target that follows the applied policies has taken, and what it still has to: tables of the ledger.

Knows names of targets and settings, and bodies as JSON text; what they mean is for the target to say. Unlike the applied
policies these rows change. Times are UTC without a zone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from obs_pipeline.storage.ledger import Ledger, metadata

policy_targets: Final = sa.Table(
    "policy_targets",
    metadata,
    sa.Column("target", sa.String(50), primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False, comment="the newest that it holds entirely; 0 before the first"),
    sa.Column("pending", sa.Integer, nullable=False, comment="settings it did not take when last tried"),
    sa.Column("waiting", sa.Integer, nullable=False, comment="settings it has no place for yet"),
    sa.Column("failure", sa.Text, nullable=False, comment="why settings are pending"),
    sa.Column("tried_at", sa.DateTime, nullable=False),
)

policy_target_settings: Final = sa.Table(
    "policy_target_settings",
    metadata,
    sa.Column("target", sa.String(50), primary_key=True),
    sa.Column("setting", sa.String(700), primary_key=True),
    sa.Column("body", sa.Text, nullable=False, comment="JSON object that the target accepted last"),
    sa.Column("made", sa.Boolean, nullable=False, comment="the target did not have it before"),
    sa.Column("accepted_at", sa.DateTime, nullable=False),
)


@dataclass(frozen=True, slots=True)
class TargetState:
    """How far a target has come: the newest revision it holds entirely, and what is left to bring to it."""

    target: str
    revision: int
    pending: int
    waiting: int
    failure: str
    tried_at: datetime


@dataclass(frozen=True, slots=True)
class AcceptedSetting:
    """One setting as a target accepted it. ``made``: it did not have it before, so it may be deleted there again."""

    setting: str
    body: str
    made: bool


class TargetStore:
    """The targets of one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def states(self) -> list[TargetState]:
        """Every target that was ever tried, by name."""
        with self._ledger.read() as connection:
            rows = connection.execute(sa.select(policy_targets).order_by(policy_targets.c.target))
            return [TargetState(*row) for row in rows]

    def state(self, target: str) -> TargetState | None:
        return next((each for each in self.states() if each.target == target), None)

    def note(self, state: TargetState) -> None:
        """Keep how far a target has come."""
        values = {name: getattr(state, name) for name in TargetState.__slots__}
        self._replace(policy_targets, values, ("target",))

    def accepted(self, target: str) -> dict[str, AcceptedSetting]:
        """What a target has taken, by setting."""
        columns = (policy_target_settings.c.setting, policy_target_settings.c.body, policy_target_settings.c.made)
        query = sa.select(*columns).where(policy_target_settings.c.target == target)
        with self._ledger.read() as connection:
            return {row.setting: AcceptedSetting(*row) for row in connection.execute(query)}

    def accept(self, target: str, setting: AcceptedSetting, now: datetime) -> None:
        """A target took a setting."""
        told = {name: getattr(setting, name) for name in AcceptedSetting.__slots__}
        self._replace(policy_target_settings, {"target": target, **told, "accepted_at": now}, ("target", "setting"))

    def forget(self, target: str, setting: str) -> None:
        """A target gave a setting up."""
        this = sa.and_(policy_target_settings.c.target == target, policy_target_settings.c.setting == setting)
        with self._ledger.begin() as connection:
            connection.execute(sa.delete(policy_target_settings).where(this))

    def _replace(self, table: sa.Table, values: dict[str, Any], key: tuple[str, ...]) -> None:
        this = sa.and_(*(table.c[name] == values[name] for name in key))
        with self._ledger.begin() as connection:
            if connection.execute(sa.update(table).where(this).values(values)).rowcount == 0:
                connection.execute(sa.insert(table).values(values))
