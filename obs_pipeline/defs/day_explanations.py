"""The pictures of a day's worst anomalies: what their deviation consists of, as waterfalls with the likely cause."""

from collections.abc import Iterator
from datetime import date
from itertools import groupby
from typing import Final

import dagster as dg
import duckdb

from obs_pipeline.defs.stories import markdown_table, picture
from obs_pipeline.detection.explanations import Explanation, RatesAt, explain_anomalies
from obs_pipeline.detection.models import anomalies_from_table
from obs_pipeline.detection.pictures.waterfall import amount_text, waterfall_svg
from obs_pipeline.detection.tables import ANOMALIES
from obs_pipeline.storage.lake import DayRange, Lake

SHOWN_A_DAY: Final = 3

# One incident shows in several metrics and in both grains: the best-placed of an agent speaks for its siblings.
_WORST: Final = f"""
    SELECT * FROM (
        SELECT * FROM anomalies WHERE dt BETWEEN ? AND ?
        QUALIFY row_number() OVER (PARTITION BY dt, org, project, agent ORDER BY score DESC, id) = 1
    )
    QUALIFY row_number() OVER (PARTITION BY dt ORDER BY score DESC, id) <= {SHOWN_A_DAY}
    ORDER BY dt, score DESC, id
"""


def day_explanations(
    connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange, lookback_days: int, rates_at: RatesAt
) -> Iterator[tuple[date, dict[str, dg.MetadataValue]]]:
    """(day, metadata) for every day of the range that has anomalies. All of them are explained by one query."""
    lake.view(connection, ANOMALIES, days)
    worst = anomalies_from_table(connection.sql(_WORST, params=[days.first, days.last]).to_arrow_table())
    explained = explain_anomalies(connection, lake, worst, lookback_days, rates_at)
    for day, some in groupby(explained, key=lambda one: one.anomaly.dt):
        yield day, _told(list(some))


def _told(some: list[Explanation]) -> dict[str, dg.MetadataValue]:
    rows = [
        (one.anomaly.agent, one.anomaly.metric, one.anomaly.grain, one.cause.name, one.cause.because) for one in some
    ]
    table = markdown_table(["agent", "metric", "grain", "likely cause", "because"], rows)
    pictures = [picture(waterfall_svg(one.split, _title(one), str(one.cause)), "Waterfall").value for one in some]
    return {
        "likely_causes": dg.MetadataValue.md(table),
        "deviation_split": dg.MetadataValue.md("\n\n".join(str(value) for value in pictures)),
    }


def _title(one: Explanation) -> str:
    anomaly, split = one.anomaly, one.split
    when = f"{anomaly.timestamp:%Y-%m-%d}" if anomaly.grain == "day" else f"{anomaly.timestamp:%Y-%m-%d %H}:00"
    sign = "+" if split.deviation > 0 else ""
    return f"{anomaly.agent or '(unattributed)'}, {anomaly.metric} {when}: {sign}{amount_text(split, split.deviation)}"
