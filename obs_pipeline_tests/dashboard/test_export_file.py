"""The whole export as a file: the same rows as in pages, the same total as on the screen, no formulas."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from obs_pipeline.dashboard import export_file as module
from obs_pipeline.dashboard.access import RateLimit
from obs_pipeline.dashboard.http.app import http_app
from obs_pipeline_tests.dashboard.served import NOW, Served, serve

FILE = "/api/dashboard_export_data/file"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serve(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def client(served: Served) -> TestClient:
    limit = RateLimit(per_minute=10**6, burst=10**6)
    app = http_app(served.service, served.gate, clock=lambda: NOW, hosts=["testserver"], limit=limit)
    return TestClient(app, raise_server_exceptions=False)


def as_(served: Served, role: str = "analyst", org: str = "acme") -> dict[str, str]:
    return {"Authorization": f"Bearer {served.tokens[role, org]}"}


def pages(served: Served, client: TestClient, form: str, **asked: object) -> list[str]:
    found, cursor = [], None
    while True:
        body = {"format": form, "timeframe": "week", "limit": 7, "cursor": cursor, **asked}
        page = client.post("/api/dashboard_export_data", json=body, headers=as_(served)).json()
        found.append(page["content"])
        cursor = page["next_cursor"]
        if not page["has_more"]:
            return found


@pytest.mark.parametrize("rows", [2, 3, 8192])
def test_a_csv_file_is_the_pages_one_after_the_other(served: Served, client: TestClient, monkeypatch, rows: int):
    monkeypatch.setattr(module, "ROWS_A_PART", rows)
    file = client.get(f"{FILE}?timeframe=week", headers=as_(served))
    first, *others = pages(served, client, "csv")
    expected = first + "".join(page.split("\r\n", 1)[1] for page in others)
    assert file.content.decode() == expected
    assert file.headers["content-type"].startswith("text/csv")
    assert file.headers["content-disposition"] == 'attachment; filename="usage-2026-02-26-2026-03-04.csv"'


def test_a_json_file_has_the_rows_of_the_pages_and_what_every_answer_tells(served: Served, client: TestClient):
    file = client.post(FILE, json={"format": "json", "timeframe": "week"}, headers=as_(served))
    told = file.json()
    assert told["rows"] == [row for page in pages(served, client, "json") for row in json.loads(page)]
    assert len(told["rows"]) == told["total"] == int(file.headers["x-total-rows"])
    assert told["time_zone"] == "UTC"
    assert told["coverage"]["calls"] == sum(row["calls"] for row in told["rows"])


@pytest.mark.parametrize("asked", [{}, {"agentId": "agent-0"}, {"teamId": "(unattributed)"}, {"agentId": "nobody"}])
def test_the_total_of_a_file_is_the_one_on_the_screen(served: Served, client: TestClient, asked: dict[str, str]):
    body = {"timeframe": "week", **asked}
    screen = client.post("/api/dashboard_get_metrics", json=body, headers=as_(served)).json()
    file = client.post(FILE, json=body, headers=as_(served))
    rows = list(csv.DictReader(io.StringIO(file.text, newline="")))
    total = sum((Decimal(row["cost"]) for row in rows), Decimal(0))
    assert total == Decimal(screen["spending"]["current"]) == Decimal(file.headers["x-total-cost"])
    assert sum(int(row["calls"]) for row in rows) == screen["calls"]
    assert (total > 0) == (asked.get("agentId") != "nobody")


def test_no_text_of_a_file_is_computed_by_a_spreadsheet(served: Served, client: TestClient):
    file = client.get(f"{FILE}?timeframe=week", headers=as_(served))
    agents = {row["agent"] for row in csv.DictReader(io.StringIO(file.text, newline=""))}
    assert "'=cmd|' /C calc'!A0" in agents
    assert not any(agent.startswith("=") for agent in agents)


@pytest.mark.parametrize(
    ("role", "org", "query", "status"),
    [
        ("viewer", "acme", "", 403),
        ("analyst", "acme", "?limit=3", 422),
        ("analyst", "acme", "?format=xml", 422),
        ("analyst", "globex", "", 200),
    ],
)
def test_a_file_is_given_to_whom_the_pages_are(served: Served, client: TestClient, role, org, query, status):
    answered = client.get(FILE + query, headers=as_(served, role, org))
    assert answered.status_code == status
    if status == 200:
        assert "agent-0" not in answered.text
        assert "secret-agent" in answered.text


@pytest.mark.parametrize(
    "text", ["plain", 'say "hi"', "a,b", "two\nlines", "cr\rhere", " =1+1", "\t=1", "-5", "@x", "'", ""]
)
def test_the_engine_writes_text_as_the_pages_do(text: str, tmp_path: Path):
    import duckdb

    from obs_pipeline.dashboard.answers.export import as_csv

    line = module._quoted(module._harmless("x"))
    (written,) = duckdb.connect().execute(f"SELECT {line} FROM (SELECT $1 AS x)", [text]).fetchall()[0]
    row = as_csv([{"y": "z", "x": text}]).split("\r\n", 1)[1]
    assert f"z,{written}\r\n" == row
