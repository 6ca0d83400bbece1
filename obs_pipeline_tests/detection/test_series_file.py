"""A CSV file of measurements: every row gets its answer, or the file is refused with the line that is wrong."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.csv as pv
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obs_pipeline.detection.series_file import (
    ANSWERS,
    SeriesFileError,
    answers,
    read_series,
    score_file,
    write_answers,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "measurements.csv"


def rows_of(path: Path, text: str | bytes) -> list[dict]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    file = read_series(path)
    return answers(file, score_file(file)).to_pylist()


def lines(count: int = 300, spike: int | None = 250, series: str = "a") -> list[str]:
    rng = random.Random(series)
    values = [10 + rng.gauss(0, 1) + (40 if index == spike else 0) for index in range(count)]
    return [
        f"{series},{(START + timedelta(minutes=5 * index)).isoformat()},{value}" for index, value in enumerate(values)
    ]


def test_there_is_one_row_for_each_row_in_the_same_order_whatever_the_order(path: Path):
    rows = lines() + lines(series="b", spike=None)
    sorted_answers = rows_of(path, "series,timestamp,value\n" + "\n".join(rows))
    shuffled = rows.copy()
    random.Random(1).shuffle(shuffled)
    answered = rows_of(path, "series,timestamp,value\n" + "\n".join(shuffled))
    assert [f"{row['series']},{row['timestamp']},{row['value']}" for row in answered] == shuffled
    key = ("series", "timestamp")
    one = {tuple(row[name] for name in key): row for row in sorted_answers}
    assert {tuple(row[name] for name in key): row for row in answered} == one


def test_the_spike_is_the_highest_of_all_series(path: Path):
    answered = rows_of(path, "series,timestamp,value\n" + "\n".join(lines(series="b", spike=None) + lines()))
    worst = max(answered, key=lambda row: row["score"])
    assert (worst["series"], float(worst["value"]) > 40) == ("a", True)
    assert worst["severity"] in ("warning", "critical")
    assert worst["method"].startswith("views:")
    assert worst["lower"] < worst["baseline"] < worst["upper"] < float(worst["value"])


@pytest.mark.parametrize(
    "stamps",
    [
        ["2026-01-01 00:00:00", "2026-01-01 01:00:00"],
        ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"],
        ["2026-01-01T00:00:00.123456789Z", "2026-01-01T01:00:00Z"],
        ["2026-01-01T02:00:00+02:00", "2026-01-01T01:00:00Z"],
        ["2026-01-01 00:00", "2026-01-01 01:00:00.5"],
        ["01/01/2026 00:00", "01/01/2026 01:00"],
        ["1 Jan 2026 00:00", "1 Jan 2026 01:00"],
        ["1767225600", "1767229200"],
        ["1767225600.0", "1767229200.0"],
        ["1767225600000", "1767229200000"],
        ["1767225600000000", "1767229200000000"],
        ["1767225600000000000", "1767229200000000000"],
    ],
)
def test_an_hour_is_an_hour_however_it_is_written(path: Path, stamps: list[str]):
    path.write_text("timestamp,value\n" + "".join(f"{stamp},1\n" for stamp in stamps))
    file = read_series(path)
    assert file.times is not None
    assert file.times[0] == pytest.approx(1767225600, abs=1)
    assert file.times[1] - file.times[0] == pytest.approx(3600, abs=1)


def test_small_numbers_are_positions_without_a_clock(path: Path):
    path.write_text("timestamp,value\n2,20\n1,10\n")
    file = read_series(path)
    assert file.times is None
    assert file.values.tolist() == [10.0, 20.0]


@pytest.mark.parametrize("text", ["", "NaN", "nan", "null", "None", "N/A", " ", "inf", "-inf"])
def test_an_unknown_value_is_answered_as_missing(path: Path, text: str):
    answered = rows_of(path, f"timestamp,value\n1,5\n2,5\n3,{text}\n4,5\n")
    row = answered[2]
    assert (row["score"], row["confidence"], row["severity"], row["method"]) == (0.0, 0.0, "none", "missing")
    assert row["baseline"] == 5.0
    assert answered[3]["method"] != "missing"


def test_true_and_false_are_one_and_nothing(path: Path):
    words = ["True", "false"] * 40
    told = rows_of(path, "timestamp,value\n" + "".join(f"{i},{word}\n" for i, word in enumerate(words)))
    digits = rows_of(path, "timestamp,value\n" + "".join(f"{i},{1 - i % 2}\n" for i in range(80)))
    assert [row["score"] for row in told] == [row["score"] for row in digits]


def test_a_count_has_its_trials(path: Path):
    rng = np.random.default_rng(1)
    counts = rng.binomial(100, 0.02, 400)
    counts[350] = 60
    text = "timestamp,value,exposure\n" + "".join(f"{i * 3600 + 1767225600},{k},100\n" for i, k in enumerate(counts))
    answered = rows_of(path, text)
    worst = max(range(400), key=lambda index: answered[index]["score"])
    assert worst == 350
    assert answered[350]["method"] == "counts:hours"
    assert answered[350]["baseline"] == pytest.approx(2, rel=0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("\n", "the file is empty"),
        ("\n\ntimestamp,value\n1,2\n", ":1: the first line is blank"),
        ("when,what\n1,2\n", ":1: there is no column 'timestamp' (the file has: when, what)"),
        ("timestamp,reading\n1,2\n", ":1: there is no column 'value'"),
        ("timestamp,value,Value\n1,2,3\n", ":1: two columns are called 'value'"),
        ("timestamp,value\n2026-01-01,1\n2026-01-02,many\n", ":3: value 'many' must be a number"),
        ("timestamp,value\n2026-01-01,1\n\n2026-01-02,many\n", ":4: value 'many' must be a number"),
        ('timestamp,value\n2026-01-01,"1,5"\n', ":2: value '1,5' must be a number"),
        ("timestamp,value\n2026-01-01,1\nyesterday,2\n", ":3: timestamp 'yesterday' must be a date and time"),
        ("timestamp,value\n,2\n", ":2: timestamp '' must be a date and time"),
        ("timestamp,value\n2026-13-01,2\n", ":2: timestamp '2026-13-01' must be a date and time"),
        ("timestamp,value\n1,2\n2,2\n3,2\nfour,2\n", ":5: timestamp 'four' must be a number"),
        ("timestamp,value\n1,2\n\n2,3,4\n", ":4: 3 columns where the header has 2"),
        ("timestamp,value\n1,2\n2\n", ":3: 1 columns where the header has 2"),
        ("timestamp,value,exposure\n1,2,few\n", ":2: exposure 'few' must be a number"),
        ("timestamp,value,exposure\n1,2,3\n2,2,-3\n", ":3: exposure '-3' must not be negative"),
        ("timestamp,value,exposure\n1,-2,3\n", ":2: value '-2' must not be negative beside an exposure"),
        (b"timestamp,value\n1,\xff\xfe\n", "not a CSV file in UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00", "not a CSV file in UTF-8"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(path: Path, text: str | bytes, said: str):
    with pytest.raises(SeriesFileError) as failure:
        rows_of(path, text)
    assert str(path) in str(failure.value)
    assert said in str(failure.value)


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbftimestamp,value\n1,2\n",
        b"timestamp,value\r\n1,2\r\n",
        b"Timestamp, VALUE\n1,2\n",
        b'"timestamp","value"\n"1","2"\n',
        b"timestamp,value\n1,2",
        b"timestamp,value\n\n\n1,2\n\n",
    ],
    ids=["mark", "windows", "capitals", "quoted", "no last newline", "blank lines"],
)
def test_usual_ways_of_writing_csv_are_understood(path: Path, text: bytes):
    answered = rows_of(path, text)
    assert len(answered) == 1
    assert answered[0]["method"] == "learning"
    assert answered[0]["score"] == 0.0


def test_a_header_alone_gives_a_header_alone(path: Path):
    path.write_text("timestamp,value\n")
    file = read_series(path)
    assert answers(file, score_file(file)).column_names == ["timestamp", "value", *ANSWERS]
    assert rows_of(path, "timestamp,value\n") == []


def test_other_columns_stay_and_old_answers_are_replaced(path: Path, tmp_path: Path):
    (row,) = rows_of(path, "timestamp,value,label,score\n1,2,yes,99\n")
    assert row["label"] == "yes"
    assert row["score"] == 0.0
    assert list(row) == ["timestamp", "value", "label", *ANSWERS]


def test_what_is_written_is_what_was_answered(path: Path, tmp_path: Path):
    path.write_text('timestamp,value,note\n1,5,"a, ""b"""\n2,,\n3,6,é\n')
    file = read_series(path)
    table = answers(file, score_file(file))
    target = tmp_path / "out.csv"
    write_answers(table, target)
    back = pv.read_csv(target).to_pylist()
    assert [row["note"] for row in back] == ['a, "b"', "", "é"]
    assert [row["score"] for row in back] == table["score"].to_pylist()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_series_with_and_without_an_exposure_share_a_file(path: Path):
    rng = np.random.default_rng(1)
    rows = [f"errors,{1767225600 + 3600 * i},{rng.binomial(100, 0.02)},100" for i in range(300)]
    rows += [f"cost,{1767225600 + 3600 * i},{rng.gamma(20.0)}," for i in range(300)]
    answered = rows_of(path, "series,timestamp,value,exposure\n" + "\n".join(rows))
    assert {row["method"].split(":")[0] for row in answered[50:300]} == {"counts"}
    assert {row["method"].split(":")[0] for row in answered[350:]} == {"views"}


VALUES = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, 1e18, -1e18, 1e-18, 1e308, -1e308, 5e-324, 1.0]),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", ""]),
            st.integers(0, 10**6),
            VALUES,
        ),
        min_size=1,
        max_size=40,
    )
)
def test_any_numbers_have_an_answer_without_a_warning(path: Path, rows: list[tuple[str, int, float]]):
    text = "series,timestamp,value\n" + "".join(
        f"{name},{1_700_000_000 + second},{value!r}\n" for name, second, value in rows
    )
    answered = rows_of(path, text)
    assert len(answered) == len(rows)
    for row in answered:
        assert 0 <= row["score"] <= 100
        assert 0 <= row["confidence"] <= 1
        assert row["severity"] in ("none", "info", "warning", "critical")
        for name in ("baseline", "lower", "upper"):
            assert row[name] is None or np.isfinite(row[name])


def test_duplicates_gaps_and_late_rows_are_answered(path: Path):
    rows = lines(200, spike=None)
    rows = rows[:50] + rows[90:] + rows[60:61] * 3 + rows[100:101]
    answered = rows_of(path, "series,timestamp,value\n" + "\n".join(rows))
    assert len(answered) == len(rows)
    assert all(row["severity"] == "none" for row in answered)
