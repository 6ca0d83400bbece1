"""The picture in a message: the series of an incident's agent against its band, over the last days.

Reads the baselines of the lake; drawing is in ``alerting.picture``. An incident of a whole project has no single series
and no picture.
"""

from datetime import timedelta
from typing import Any

import duckdb

from obs_pipeline.alerting.models import Incident
from obs_pipeline.alerting.picture import band_png
from obs_pipeline.alerting.rendering import Picture
from obs_pipeline.alerting.wording import Chart
from obs_pipeline.detection.tables import BASELINES
from obs_pipeline.storage.lake import DayRange, Lake

HOURS_SHOWN = 72
DAYS_SHOWN = 28
_FEWEST_POINTS = 6
_BARS = 24

_POINTS = """
    SELECT time, observed, lower, upper FROM baselines
    WHERE grain = ? AND metric = ? AND org IS NOT DISTINCT FROM ? AND project IS NOT DISTINCT FROM ?
        AND agent IS NOT DISTINCT FROM ? AND time BETWEEN ? AND ?
    ORDER BY time
"""


def incident_chart(connection: duckdb.DuckDBPyConnection, lake: Lake, incident: Incident) -> Chart:
    """Three days by the hour, or four weeks by the day where the hours are not known; empty without a series."""
    if not incident.agent or not incident.metric:
        return Chart()
    last = incident.last_seen_at
    lake.view(connection, BASELINES, DayRange((last - timedelta(days=DAYS_SHOWN)).date(), last.date()))
    for grain, reach in (("hour", timedelta(hours=HOURS_SHOWN)), ("day", timedelta(days=DAYS_SHOWN))):
        place = [incident.org or None, incident.project or None, incident.agent]
        points = connection.execute(_POINTS, [grain, incident.metric, *place, last - reach, last]).fetchall()
        if len(points) >= _FEWEST_POINTS:
            return _chart(points, incident)
    return Chart()


def _chart(points: list[tuple[Any, ...]], incident: Incident) -> Chart:
    times, observed, lower, upper = zip(*points, strict=True)
    marks = [n for n, time in enumerate(times) if incident.began_at <= time <= incident.last_seen_at]
    description = (
        f"{incident.metric} from {times[0]:%Y-%m-%d %H:%M} to {times[-1]:%Y-%m-%d %H:%M} UTC, and its usual band"
    )
    known = tuple(float(value) for value in observed[-_BARS:] if value is not None)
    return Chart(known, Picture(band_png(observed, lower, upper, marks), description=description))
