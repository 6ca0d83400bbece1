"""A table of measurements as a CSV file, scored: what is read, what is answered for every row, what is refused.

Holds reading, sorting into series, and writing. No statistics, no printing.

The file has the columns ``timestamp`` and ``value``, and may have ``series`` (which of several series a row belongs to)
and ``exposure`` (the trials behind a count, such as requests behind errors); other columns are kept as they are. Names
of columns are read without regard to case. Rows may come in any order.

Timestamps: ISO 8601 and other common dates (with points, or where a row of the file can be nothing else, the day before
the month; otherwise 3/4/2026 is the fourth of March; without a zone, UTC), seconds, milliseconds, microseconds or
nanoseconds since 1970, or any rising number below 10⁸, which is taken for a position without a clock. Within a file all
rows use one kind.

Values: numbers, or true and false for 1 and 0; what is larger than 10¹⁰⁰ counts as 10¹⁰⁰, on either side of zero.

Answers for odd rows: an empty, NaN or infinite value is unknown, as is one with no exposure in a series that had one
before; a series without any exposure is none of counts, whatever else is in the file. What is unknown is scored 0 with the
method ``missing`` and still has its baseline. Rows of the same series and time are scored one after the other, in the
order of the file. The first value of a series has no baseline, the method ``learning``, and the score 0.
"""

from __future__ import annotations

import codecs
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv

from obs_pipeline.detection.models import SEVERITIES
from obs_pipeline.detection.panel_config import PanelConfig
from obs_pipeline.detection.panel_score import PanelScores, Progress, score_series
from obs_pipeline.detection.views import VIEWS
from obs_pipeline.errors import ObsError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ANSWERS: Final = ("baseline", "lower", "upper", "score", "confidence", "severity", "method")
"""The columns that are added, after those of the file; columns of these names are replaced."""

_UNKNOWN: Final = ["", "nan", "null", "none", "na", "n/a", "-"]
_TRUTHS: Final = {"true": "1", "false": "0"}
_POSITIONS_BELOW: Final = 1e8
_UNITS: Final = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (np.inf, 1e9))
_DAY_FIRST: Final = r"^(\d{1,2}\.\d{1,2}\.|(1[3-9]|2\d|3[01])[/-]\d{1,2}[/-])"
_MONTH_FIRST: Final = r"^\d{1,2}[/-](1[3-9]|2\d|3[01])[/-]"
_REWRITTEN: Final = (
    (r"^(\d{1,2})[./-](\d{1,2})[./-](\d{4})", r"\3-\2-\1"),
    (r"^(\d{1,2})[./-](\d{1,2})[./-](\d{2})($|[ T])", r"20\3-\2-\1\4"),
)
_HEADER_BYTES: Final = 1 << 16
_BLOCK_BYTES: Final = 1 << 20
_SEPARATORS: Final = {";": "semicolons", "\t": "tabs", "|": "bars"}
_DECIMALS: Final = 6


class SeriesFileError(ObsError):
    """The file cannot be read as series; the message names the file, the line and what to change."""


@dataclass(frozen=True)
class SeriesFile:
    """A file as series. ``order`` holds the row of every entry of ``values``, ``times`` and ``exposure``, which are
    sorted by series and time; series ``i`` are the entries from ``starts[i]`` up to ``starts[i + 1]``.

    ``table`` are the columns as text, in the order of the file; ``names`` the series, "" where the file has none.
    ``times`` are seconds since 1970 UTC, None when the file has positions.
    """

    path: Path
    table: pa.Table
    order: Ints
    values: Floats
    starts: Ints
    times: Floats | None
    exposure: Floats | None
    names: list[str]


def read_series(path: Path) -> SeriesFile:
    """Read and sort a file. Raises :class:`SeriesFileError` naming the first line that cannot be understood."""
    reader = _Reader(path)
    table = reader.read()
    columns = _columns(path, table)
    values = reader.numbers(table[columns["value"]], "value")
    exposure = reader.numbers(table[columns["exposure"]], "exposure") if "exposure" in columns else None
    if exposure is not None:
        reader.refuse(np.flatnonzero(exposure < 0), table[columns["exposure"]], "exposure", "not be negative")
        reader.refuse(
            np.flatnonzero(values < 0), table[columns["value"]], "value", "not be negative beside an exposure"
        )
    times, has_clock = reader.times(table[columns["timestamp"]])
    owner, names = _owners(table, columns.get("series"))
    order = np.lexsort((times, owner))
    return SeriesFile(
        path=path,
        table=table,
        order=order,
        values=values[order],
        starts=np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(names)))]).astype(np.int64),
        times=times[order] if has_clock else None,
        exposure=None if exposure is None else exposure[order],
        names=names,
    )


def score_file(file: SeriesFile, config: PanelConfig | None = None, progress: Progress | None = None) -> PanelScores:
    """Scores of every row, in the order of the file."""
    scores = score_series(
        file.values, file.starts, times=file.times, exposure=file.exposure, config=config, progress=progress
    )
    place = np.empty_like(file.order)
    place[file.order] = np.arange(file.order.size)
    return PanelScores._make(column[place] for column in scores)


def answers(file: SeriesFile, scores: PanelScores) -> pa.Table:
    """The file's own columns, and :data:`ANSWERS`. Unknown numbers are empty; the severity of no anomaly is ``none``."""
    own = [name for name in file.table.column_names if name.strip().lower() not in ANSWERS]
    nothing = pa.scalar(None, pa.string())
    kept = pa.table({name: pc.if_else(pc.equal(file.table[name], ""), nothing, file.table[name]) for name in own})
    severities = pa.array(["none", *SEVERITIES]).take(pa.array(scores.severity.astype(np.int64)))
    by_view = [f"{kind}:{view}" for kind in ("views", "counts") for view in (*VIEWS, "hours")]
    methods = pa.array(["missing", "learning", *by_view])
    counts = np.zeros(scores.view.size, dtype=bool)
    if file.exposure is not None:
        counts[file.order] = np.isfinite(file.exposure)
    by_view_at = 2 + scores.view + (len(VIEWS) + 1) * counts
    chosen = np.where(scores.view < 0, 0, np.where(np.isnan(scores.expected), 1, by_view_at))
    added = {
        "baseline": pa.array(scores.expected, from_pandas=True),
        "lower": pa.array(scores.lower, from_pandas=True),
        "upper": pa.array(scores.upper, from_pandas=True),
        "score": pa.array(np.round(scores.score, _DECIMALS)),
        "confidence": pa.array(np.round(scores.confidence, _DECIMALS)),
        "severity": severities,
        "method": methods.take(pa.array(chosen)),
    }
    for name in ANSWERS:
        kept = kept.append_column(name, added[name])
    return kept


def write_answers(table: pa.Table, path: Path) -> None:
    """Write a table as CSV; the file appears whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        part.touch()
        with duckdb.connect() as connection:
            connection.from_arrow(table).write_csv(str(part))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


# ---- reading --------------------------------------------------------------------------------------------------


class _Reader:
    """Reads one file as text and knows on which line each row stood."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = np.zeros(0, dtype=np.int64)
        self._bad: tuple[int, int, int] | None = None
        self._header_alone = False
        self._quotes = 0

    def read(self) -> pa.Table:
        """All columns as text, blank lines left out."""
        try:
            self._require_utf8()
            names = self._header()
            if self._header_alone:
                return pa.table([pa.array([], pa.string())] * len(names), names=names)
            table = pv.read_csv(
                str(self._path),
                pv.ReadOptions(use_threads=False),
                pv.ParseOptions(ignore_empty_lines=False, newlines_in_values=True, invalid_row_handler=self._judge),
                pv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
            )
        except pa.ArrowInvalid as error:
            if self._bad is not None:
                line, expected, actual = self._bad
                message = f"{actual} columns where the header has {expected}; mend or remove the line"
                if actual > expected:
                    message += " (decimals need a point, text with a comma in it quotes)"
                raise SeriesFileError(f"{self._path}:{line}: {message}") from error
            said = str(error).splitlines()[0][:200]
            raise SeriesFileError(f"{self._path}: not a CSV file: {said}") from error
        filled = np.zeros(table.num_rows, dtype=bool)
        breaks = np.zeros(table.num_rows, dtype=np.int64)
        for column in table.columns:
            filled |= pc.not_equal(column, "").to_numpy()
            breaks += pc.count_substring(column, "\n").to_numpy()
        last = table.num_rows - 1
        if last >= 0 and self._quotes % 2 and "\n" in table.column(table.num_columns - 1)[last].as_py():
            message = "a quote is opened and never closed, which hides all lines after it; mend the line"
            raise SeriesFileError(f"{self._path}:{last + 2 + int(breaks[:-1].sum())}: {message}")
        self._lines = (np.arange(table.num_rows) + 2 + np.cumsum(breaks) - breaks)[filled]
        return table.filter(pa.array(filled))

    def _header(self) -> list[str]:
        with pa.input_stream(str(self._path)) as stream:
            start = stream.read(_HEADER_BYTES)
        if not start.strip():
            raise SeriesFileError(f"{self._path}: the file is empty; it needs a header such as timestamp,value")
        if not start.splitlines()[0].strip():
            raise SeriesFileError(f"{self._path}:1: the first line is blank; the header must stand there")
        if len(start) < _HEADER_BYTES and len(start.splitlines()) == 1:
            self._header_alone = True
        names = next(csv.reader([start.splitlines()[0].decode("utf-8-sig")]))
        for separator, called in _SEPARATORS.items():
            if len(names) == 1 and separator in names[0]:
                raise SeriesFileError(
                    f"{self._path}:1: the columns are separated by {called}; save the table as CSV with commas between "
                    "columns and a point in decimals"
                )
        return names

    def _require_utf8(self) -> None:
        decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
        with pa.input_stream(str(self._path)) as stream:
            ended = False
            while not ended:
                block = stream.read(_BLOCK_BYTES)
                ended = not block
                try:
                    decoder.decode(block, final=ended)
                except UnicodeDecodeError as error:
                    line += error.object[: error.start].count(b"\n")
                    raise SeriesFileError(
                        f"{self._path}:{line}: not a CSV file in UTF-8; save the table as such, or, if it is compressed, "
                        "give it the ending .gz"
                    ) from error
                line += block.count(b"\n")
                self._quotes += block.count(b'"')

    def _judge(self, row: Any) -> str:
        self._bad = (row.number, row.expected_columns, row.actual_columns)
        return "error"

    def line(self, row: int) -> int:
        """The line of the file that a row stood on, the header being line 1."""
        return int(self._lines[row])

    def refuse(self, rows: Ints, column: Any, name: str, rule: str) -> None:
        """Raise for the first of the rows, if there is any."""
        if rows.size:
            found = column[int(rows[0])].as_py()
            raise SeriesFileError(f"{self._path}:{self.line(int(rows[0]))}: {name} {found!r} must {rule}")

    def numbers(self, column: Any, name: str) -> Floats:
        """The numbers of a column, NaN for those that are unknown or infinite."""
        text = pc.utf8_trim_whitespace(column)
        unknown = pc.is_in(pc.utf8_lower(text), pa.array(_UNKNOWN))
        known = pc.if_else(unknown, pa.scalar(None, pa.string()), text)
        numbers = _cast(known, pa.float64())
        if numbers is None:
            import pandas as pd

            for word, number in _TRUTHS.items():
                known = pc.if_else(pc.equal(pc.utf8_lower(known), word), number, known)
            parsed = pd.to_numeric(known.to_pandas(), errors="coerce").to_numpy(dtype=np.float64)
            wrong = np.isnan(parsed) & known.is_valid().to_numpy()
            self.refuse(np.flatnonzero(wrong), column, name, "be a number such as 1234.5, or empty when it is unknown")
            numbers = pa.chunked_array([pa.array(parsed)])
        plain = np.asarray(numbers.to_numpy(), dtype=np.float64)
        return np.where(np.isfinite(plain), plain, np.nan)

    def times(self, column: Any) -> tuple[Floats, bool]:
        """Seconds since 1970, or positions; and whether they are times of a clock."""
        text = pc.utf8_trim_whitespace(column)
        numbers = _cast(text, pa.float64())
        if numbers is not None:
            return self._numbered(np.asarray(numbers.to_numpy(), dtype=np.float64), column)
        for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
            moments = _cast(text, kind)
            if moments is not None:
                return moments.cast(pa.int64()).to_numpy() / 1e6, True
        import pandas as pd

        numbered = pd.to_numeric(text.to_pandas(), errors="coerce").to_numpy(dtype=np.float64)
        unnumbered = np.flatnonzero(np.isnan(numbered))
        if 2 * unnumbered.size < numbered.size:
            self.refuse(unnumbered, column, "timestamp", "be a number like most others of the file")
        if pc.any(pc.match_substring_regex(text, _DAY_FIRST)).as_py():
            month_first = pc.match_substring_regex(text, _MONTH_FIRST).to_numpy()
            self.refuse(np.flatnonzero(month_first), column, "timestamp", "have the day first like others of the file")
            # Rewritten, as pandas would take the month of an ISO date for its day.
            for day_month_year, year_month_day in _REWRITTEN:
                text = pc.replace_substring_regex(text, day_month_year, year_month_day)
        parsed = pd.to_datetime(text.to_pandas(), format="mixed", utc=True, errors="coerce")
        self.refuse(
            np.flatnonzero(parsed.isna().to_numpy()),
            column,
            "timestamp",
            "be a date and time such as 2026-03-01T12:00:00Z",
        )
        return parsed.dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64) / 1e6, True

    def _numbered(self, numbers: Floats, column: Any) -> tuple[Floats, bool]:
        self.refuse(np.flatnonzero(~np.isfinite(numbers)), column, "timestamp", "be finite")
        largest = float(np.abs(numbers).max(initial=0.0))
        if largest < _POSITIONS_BELOW:
            return numbers, False
        scale = next(per_second for below, per_second in _UNITS if largest < below)
        return numbers / scale, True


def _cast(column: Any, kind: Any) -> Any | None:
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        return None


def _columns(path: Path, table: pa.Table) -> dict[str, str]:
    """The name in the file of each column that is understood."""
    found: dict[str, str] = {}
    for name in table.column_names:
        plain = name.strip().lower()
        if plain in found or table.column_names.count(name) > 1:
            raise SeriesFileError(f"{path}:1: two columns are called {plain!r}; rename one")
        found[plain] = name
    for needed in ("timestamp", "value"):
        if needed not in found:
            has = ", ".join(table.column_names)
            raise SeriesFileError(
                f"{path}:1: there is no column {needed!r} (the file has: {has}); the header needs timestamp and value, "
                "and may have series and exposure"
            )
    return found


def _owners(table: pa.Table, column: str | None) -> tuple[Ints, list[str]]:
    """The series of every row as a number, and the names of the series, in the order of their first row."""
    if column is None:
        return np.zeros(table.num_rows, dtype=np.int64), [""]
    encoded = table[column].combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()
