"""A callback for LiteLLM's proxy: each call as a row of its own table of spend logs, made by LiteLLM's own function.

The proxy writes that table through an engine that it downloads at its first start; here the row goes there directly.
Runs in the environment of the producers. Needs ``SPEND_DATABASE`` (a connection string).
"""

import json
import os
from datetime import datetime

import psycopg
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy.spend_tracking.spend_tracking_utils import get_logging_payload
from psycopg import sql


class SpendLogger(CustomLogger):
    """Writes what the proxy would have written."""

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        _insert(get_logging_payload(kwargs, response_obj, start_time, end_time))

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        """A failed call has no end of its own here; the proxy's writer takes the moment it writes, and adds the error."""
        now = datetime.now()
        timed = {**kwargs, "completion_start_time": kwargs.get("completion_start_time") or now}
        row = get_logging_payload(timed, response_obj or {}, start_time or now, end_time or now)
        said = {
            **json.loads(row["metadata"]),
            "error_information": kwargs["standard_logging_object"]["error_information"],
        }
        _insert({**row, "status": "failure", "metadata": json.dumps(said)})


def _insert(row: dict) -> None:
    values = {name: json.dumps(value) if isinstance(value, dict | list) else value for name, value in row.items()}
    with psycopg.connect(os.environ["SPEND_DATABASE"]) as connection:
        known = connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'LiteLLM_SpendLogs'"
        )
        names = [name for (name,) in known if name in values]
        insert = sql.SQL('INSERT INTO "LiteLLM_SpendLogs" ({}) VALUES ({}) ON CONFLICT DO NOTHING').format(
            sql.SQL(", ").join(map(sql.Identifier, names)), sql.SQL(", ").join(sql.Placeholder() * len(names))
        )
        connection.execute(insert, [values[name] for name in names])


spend_logger = SpendLogger()
