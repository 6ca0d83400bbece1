"""What people said of anomalies: a table of the ledger, one row a saying, the last of an anomaly counts.

Keeps beside each saying which series and time it is about, so that it stays true when a day is computed anew. What a
verdict changes is decided by the detection. Times are UTC without a zone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, Literal, get_args

import sqlalchemy as sa

from obs_pipeline.storage.ledger import Ledger, metadata

Verdict = Literal["real", "false_positive", "planned"]
VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)

anomaly_labels: Final = sa.Table(
    "anomaly_labels",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("anomaly_id", sa.String(40), nullable=False, index=True),
    sa.Column("verdict", sa.String(20), nullable=False, comment="real, false_positive or planned"),
    sa.Column("org", sa.Text),
    sa.Column("project", sa.Text),
    sa.Column("agent", sa.Text),
    sa.Column("metric", sa.String(20), nullable=False),
    sa.Column("grain", sa.String(20), nullable=False),
    sa.Column("timestamp", sa.DateTime, nullable=False, comment="start of the anomaly's day or hour"),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("ends", sa.DateTime, comment="when it was over; null: after one day or hour"),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True, slots=True)
class AnomalyLabel:
    """What somebody said of one anomaly, and which values of which series that is.

    From ``timestamp`` until ``ends``; without it, the one day or hour that begins then.
    """

    anomaly_id: str
    verdict: Verdict
    org: str | None
    project: str | None
    agent: str | None
    metric: str
    grain: str
    timestamp: datetime
    author: str
    note: str
    at: datetime
    ends: datetime | None = None


class AnomalyLabels:
    """The labels in a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def add(self, labels: Iterable[AnomalyLabel]) -> None:
        """Keep some labels, all or none; earlier ones of the same anomalies stay as history."""
        rows = [asdict(label) for label in labels]
        if rows:
            with self._ledger.begin() as connection:
                connection.execute(sa.insert(anomaly_labels), rows)

    def verdicts(self, anomalies: Collection[str]) -> dict[str, Verdict]:
        """What was last said of some anomalies, by their ids; those of which nothing was said are left out."""
        if not anomalies:
            return {}
        table = anomaly_labels.c
        query = sa.select(table.anomaly_id, table.verdict).where(table.anomaly_id.in_(anomalies)).order_by(table.number)
        with self._ledger.read() as connection:
            return {row.anomaly_id: row.verdict for row in connection.execute(query)}

    def standing(self) -> list[AnomalyLabel]:
        """The last label of each anomaly, in the order in which they were said."""
        newest = sa.select(sa.func.max(anomaly_labels.c.number)).group_by(anomaly_labels.c.anomaly_id)
        query = (
            sa.select(*(column for column in anomaly_labels.c if column.name != "number"))
            .where(anomaly_labels.c.number.in_(newest))
            .order_by(anomaly_labels.c.number)
        )
        with self._ledger.read() as connection:
            return [AnomalyLabel(**row._mapping) for row in connection.execute(query)]
