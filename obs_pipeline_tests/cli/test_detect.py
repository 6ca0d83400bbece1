"""``obs-pipeline detect`` as a person runs it."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import random
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from obs_pipeline.cli.main import run
from obs_pipeline_tests.command_line import CommandLine


@pytest.fixture
def obs(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / ".obs")


@pytest.fixture
def measurements(tmp_path: Path) -> Path:
    rng = random.Random(1)
    path = tmp_path / "cpu.csv"
    rows = [f"2026-01-{1 + i // 24:02d} {i % 24:02d}:00:00,{rng.gauss(10, 1) + 40 * (i == 500)}" for i in range(600)]
    path.write_text("timestamp,value\n" + "\n".join(rows) + "\n")
    return path


def test_a_table_goes_in_and_comes_out_with_its_scores(obs: CommandLine, measurements: Path, tmp_path: Path):
    result = tmp_path / "scored.csv"
    done = obs("detect", measurements, "-o", result)
    assert "600 rows of 1 series" in done.stdout
    assert "2026-01-21 20:00:00" in done.stdout
    assert done.stderr == ""
    with result.open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 600
    worst = max(rows, key=lambda row: float(row["score"]))
    assert worst["timestamp"] == "2026-01-21 20:00:00"
    assert float(worst["confidence"]) > 0.1
    assert worst["severity"] in ("warning", "critical")


def test_the_summary_is_one_json_document(obs: CommandLine, measurements: Path, tmp_path: Path):
    done = obs("detect", measurements, "--output", tmp_path / "scored.csv", "--json")
    summary = json.loads(done.stdout)
    assert summary["rows"] == 600
    assert summary["series"] == 1
    assert summary["unknown"] == 0
    assert sum(summary["severities"].values()) == 600
    assert summary["worst"][0]["timestamp"] == "2026-01-21 20:00:00"


def test_nothing_is_said_beside_the_result_of_a_long_table(
    measurements: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("obs_pipeline.cli.detect._LONG", 600)
    code, _ = detect(measurements.parent, measurements.read_bytes(), monkeypatch)
    assert (code, capfd.readouterr().err) == (0, "")


def test_settings_come_from_a_file(obs: CommandLine, measurements: Path, tmp_path: Path):
    settings = tmp_path / "views.yaml"
    settings.write_text("marks: {info: 9, warning: 9, critical: 9}\n")
    done = obs("detect", measurements, "-o", tmp_path / "scored.csv", "--config", settings, "--json")
    assert json.loads(done.stdout)["severities"] == {"critical": 0, "warning": 0, "info": 0, "none": 600}


def test_values_too_large_to_reckon_with_are_counted(obs: CommandLine, tmp_path: Path):
    file = tmp_path / "large.csv"
    file.write_text("timestamp,value\n" + "".join(f"{i},{i % 3}\n" for i in range(50)) + "50,1e120\n51,-1e300\n")
    done = obs("detect", file, "-o", tmp_path / "scored.csv")
    assert "2 values beyond 1e100 were taken for 1e100" in done.stdout
    assert json.loads(obs("detect", file, "-o", tmp_path / "scored.csv", "--json").stdout)["beyond_limit"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.csv", "-o", "out.csv"], "there is no such file"),
        (["cpu.csv", "-o", "cpu.csv"], "is the file to read"),
        (["cpu.csv", "-o", "nowhere/out.csv"], "there is no directory"),
        (["cpu.csv", "-o", "."], "is a directory"),
        (["cpu.csv", "-o", "out.csv", "--config", "cpu.csv"], "cpu.csv"),
        (["bad.csv", "-o", "out.csv"], "bad.csv:2: value 'x' must be a number"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(
    obs: CommandLine, measurements: Path, tmp_path: Path, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("timestamp,value\n2026-01-01,x\n")
    before = measurements.read_text()
    done = obs("detect", *words, exits_with=2)
    assert said in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.csv").exists()
    assert measurements.read_text() == before


# ---- any table ------------------------------------------------------------------------------------------------------

HOUR = timedelta(hours=1)
START = datetime(2026, 1, 1)
NUMBERS = ("baseline", "lower", "upper", "score", "confidence")


def noise(row: int) -> float:
    return round(10 + math.sin(row * 1.7) + math.cos(row * 0.37), 3)


def rows(
    count: int,
    value: Callable[[int], object] = noise,
    stamp: Callable[[int], object] = lambda row: START + row * HOUR,
    header: str = "timestamp,value",
) -> str:
    return f"{header}\n" + "".join(f"{stamp(row)},{value(row)}\n" for row in range(count))


def one_odd(odd: object, usual: object = 3) -> Callable[[int], object]:
    """A column whose row 20, on line 22 of the file, is odd."""
    return lambda row: odd if row == 20 else usual


def shuffled(text: str) -> str:
    header, *lines = text.splitlines()
    random.Random(7).shuffle(lines)
    return "\n".join([header, *lines]) + "\n"


def detect(folder: Path, content: str | bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[int, Path]:
    """The command in this process, which is as much of it as a hundred tables need."""
    given, result = folder / "given.csv", folder / "result.csv"
    given.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr(sys, "argv", ["obs-pipeline", "detect", str(given), "-o", str(result)])
    with pytest.raises(SystemExit) as ended:
        run()
    assert isinstance(ended.value.code, int)
    return ended.value.code, result


@pytest.mark.parametrize(
    ("content", "unknown"),
    [
        pytest.param(rows(200, lambda row: 5), 0, id="constant"),
        pytest.param(rows(200, lambda row: 0), 0, id="zero"),
        pytest.param(rows(200, one_odd("NaN", 4)), 1, id="nan"),
        pytest.param(rows(200, one_odd("", 4)), 1, id="empty"),
        pytest.param(rows(200, one_odd("N/A", 4)), 1, id="not available"),
        pytest.param(rows(200, one_odd("-inf", 4)), 1, id="infinite"),
        pytest.param(rows(30, lambda row: ""), 30, id="nothing known"),
        pytest.param(rows(200, stamp=lambda row: START + (row + 90 * (row > 100)) * HOUR), 0, id="gap"),
        pytest.param(rows(200, stamp=lambda row: START + row // 2 * HOUR), 0, id="every time twice"),
        pytest.param(rows(50, stamp=lambda row: START), 0, id="one time only"),
        pytest.param(shuffled(rows(300)), 0, id="unsorted"),
        pytest.param(rows(1), 0, id="one row"),
        pytest.param(rows(0), 0, id="header alone"),
        pytest.param("timestamp,value", 0, id="header without an end"),
        pytest.param(rows(200, lambda row: noise(row) * 1e18), 0, id="enormous"),
        pytest.param(rows(200, lambda row: noise(row) * 1e-18), 0, id="tiny"),
        pytest.param(
            rows(200, lambda row: "1e300" if row % 2 else "1e-300"), 0, id="both ends of what a number can be"
        ),
        pytest.param(rows(200, lambda row: -noise(row)), 0, id="negative"),
        pytest.param(rows(200, lambda row: f"  {noise(row)} "), 0, id="blanks"),
        pytest.param("\ufeff" + rows(50), 0, id="byte order mark"),
        pytest.param(rows(50).replace("\n", "\r\n"), 0, id="lines of Windows"),
        pytest.param(
            rows(50, lambda row: f'"{noise(row)}","a, ""b""\nc"', header='"timestamp","value","series"'), 0, id="quoted"
        ),
        pytest.param(rows(200, stamp=lambda row: 1767225600 + 3600 * row), 0, id="seconds"),
        pytest.param(rows(200, stamp=lambda row: (1767225600 + 3600 * row) * 1000), 0, id="milliseconds"),
        pytest.param(rows(200, stamp=lambda row: f"{(START + row * HOUR).isoformat()}Z"), 0, id="utc"),
        pytest.param(rows(200, stamp=lambda row: f"{(START + row * HOUR).isoformat()}+02:00"), 0, id="zone"),
        pytest.param(
            rows(200, stamp=lambda row: f"{(START + row * HOUR).isoformat()}{('Z', '-0500', '')[row % 3]}"),
            0,
            id="zones",
        ),
        pytest.param(
            rows(50, lambda row: f"{noise(row)},=A1,[red]", header="timestamp,value,series,note"), 0, id="markup"
        ),
        pytest.param(
            rows(
                300,
                lambda row: f"{row % 5},a,100" if row % 2 else f"{noise(row)},b,",
                header="timestamp,value,series,exposure",
            ),
            0,
            id="series with and without an exposure",
        ),
        pytest.param(
            rows(200, lambda row: f"{row % 3},{one_odd(0, 90)(row)}", header="timestamp,value,exposure"),
            1,
            id="no trials",
        ),
    ],
)
def test_every_row_of_any_table_has_its_answer_in_its_place(
    content: str, unknown: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    code, result = detect(tmp_path, content, monkeypatch)
    said = capfd.readouterr()
    assert (code, said.err) == (0, "")
    given = list(csv.DictReader(io.StringIO(content.removeprefix("\ufeff"), newline="")))
    with result.open(newline="", encoding="utf-8") as stream:
        answered = list(csv.DictReader(stream))
    for name in ("timestamp", "series"):
        assert [row.get(name) for row in answered] == [row.get(name) for row in given]
    assert sum(row["method"] == "missing" for row in answered) == unknown
    for row in answered:
        for name in NUMBERS:
            if row[name]:
                assert math.isfinite(float(row[name]))
            else:
                assert name in ("baseline", "lower", "upper")
                assert row["method"] in ("missing", "learning")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("", ": the file is empty; it needs a header such as timestamp,value", id="empty"),
        pytest.param(
            rows(9, header="time,value"), ":1: there is no column 'timestamp' (the file has: time", id="no time"
        ),
        pytest.param(
            rows(9, header="timestamp,cpu"), ":1: there is no column 'value' (the file has: timesta", id="no value"
        ),
        pytest.param(rows(9).partition("\n")[2], ":1: there is no column 'timestamp'", id="no header"),
        pytest.param(
            rows(9).replace(",", ";"),
            ":1: the columns are separated by semicolons; save the table as CSV",
            id="semicolons",
        ),
        pytest.param(
            rows(9).replace(",", "\t"), ":1: the columns are separated by tabs; save the table as CSV", id="tabs"
        ),
        pytest.param(
            rows(9).replace(",", ";").replace(".", ","),
            ":1: the columns are separated by semicolons",
            id="decimal commas",
        ),
        pytest.param(
            rows(50, one_odd('"1,5"')), ":22: value '1,5' must be a number such as 1234.5", id="quoted decimal comma"
        ),
        pytest.param(
            rows(50, one_odd("1,5")),
            ":22: 3 columns where the header has 2; mend or remove the line (deci",
            id="a comma",
        ),
        pytest.param(
            rows(50, one_odd("many")), ":22: value 'many' must be a number such as 1234.5, or empty", id="text"
        ),
        pytest.param(rows(50, one_odd("12 ms")), ":22: value '12 ms' must be a number", id="unit"),
        pytest.param(
            rows(50, lambda row: f'{one_odd("x")(row)},"a\nb"', header="timestamp,value,note"),
            ":42: value 'x' must be a number",
            id="text after lines within quotes",
        ),
        pytest.param(rows(50, one_odd('"3')), ":22: a quote is opened and never closed", id="open quote"),
        pytest.param(
            rows(50, stamp=one_odd("2026-02-30", START)), ":22: timestamp '2026-02-30' must be a date", id="no such day"
        ),
        pytest.param(
            rows(50, stamp=one_odd("", START)),
            ":22: timestamp '' must be a date and time such as",
            id="no time at one row",
        ),
        pytest.param(
            rows(50, stamp=one_odd("02/13/2026", "13/02/2026")),
            ":22: timestamp '02/13/2026' must have the day first",
            id="mixed dates",
        ),
        pytest.param(
            rows(50, one_odd("3,-1", "3,9"), header="timestamp,value,exposure"),
            ":22: exposure '-1' must not be negative",
            id="exposure",
        ),
        pytest.param(
            rows(50, one_odd("-3,9", "3,9"), header="timestamp,value,exposure"),
            ":22: value '-3' must not be negative",
            id="count",
        ),
        pytest.param(
            rows(50, one_odd("3,x", "3,9"), header="timestamp,value,exposure"),
            ":22: exposure 'x' must be a number",
            id="no trials",
        ),
        pytest.param(
            rows(50, one_odd("é")).encode("latin-1"), ":22: not a CSV file in UTF-8; save the table as such", id="latin"
        ),
        pytest.param(rows(50).encode("utf-16"), ":1: not a CSV file in UTF-8", id="utf-16"),
        pytest.param(gzip.compress(rows(50).encode()), ":1: not a CSV file in UTF-8", id="compressed"),
        pytest.param(bytes(range(256)) * 20, ": not a CSV file in UTF-8", id="no text"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_in_one_line(
    content: str | bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    code, result = detect(tmp_path, content, monkeypatch)
    shown = capfd.readouterr()
    assert code == 2
    assert shown.err.startswith(f"error: {tmp_path / 'given.csv'}")
    assert shown.err.count("\n") == 1
    assert said.removeprefix(":") in shown.err
    assert shown.out == ""
    assert not result.exists()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (["01.02.2026", "13.02.2026"], ["2026-02-01", "2026-02-13"]),
        (["01/02/2026", "13/02/2026"], ["2026-02-01", "2026-02-13"]),
        (["01/02/2026", "02/13/2026"], ["2026-01-02", "2026-02-13"]),
        (["2026-02-01", "13.2.26 00:00"], ["2026-02-01", "2026-02-13"]),
    ],
)
def test_days_and_months_are_told_apart_by_the_whole_file(written: list[str], meant: list[str], tmp_path: Path):
    from obs_pipeline.detection.series_file import read_series

    path = tmp_path / "days.csv"
    path.write_text("timestamp,value\n" + "".join(f"{day},1\n" for day in written))
    times = read_series(path).times
    assert times is not None
    assert [f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d}" for time in times] == meant
