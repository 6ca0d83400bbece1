"""Mappings: what they accept, and how they say what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from obs_pipeline.usage.event import EVENT_SCHEMA
from obs_pipeline.usage.sources.mapping import BUILTIN, MappingInvalid, kind_of, load_mapping, path_steps


@pytest.mark.parametrize("name", BUILTIN)
def test_a_shipped_mapping_loads_by_its_name(name: str):
    assert load_mapping(name).source == name


def test_the_canonical_mapping_maps_every_field_to_its_own_name():
    assert {field: column.paths for field, column in load_mapping("canonical").columns.items()} == {
        field: (field,) for field in EVENT_SCHEMA.names
    }


def test_every_field_has_the_kind_its_type_asks_for():
    assert {name: kind_of(name) for name in ("event_time", "input_tokens", "reported_cost", "ttft_ms", "model")} == {
        "event_time": "time",
        "input_tokens": "count",
        "reported_cost": "money",
        "ttft_ms": "duration",
        "model": "text",
    }


def test_a_mapping_file_may_use_every_form_of_a_column(tmp_path: Path):
    path = tmp_path / "gateway.yaml"
    path.write_text(
        """
source: gateway
format: jsonl
tokens: exclusive
filter: {field: kind, equals: [completion, true]}
columns:
  event_time: {from: [ended, started], unit: ms}
  model: 'tags."gen_ai.model"'
  org: {const: acme}
  reported_cost: {from: cost, unit: cents, zero: unknown}
attributes:
  region: meta.regions[0]
"""
    )
    mapping = load_mapping(path)
    assert mapping.columns["event_time"].paths == ("ended", "started")
    assert mapping.columns["org"].const == "acme"
    assert mapping.filter is not None
    assert mapping.filter.values == ("completion", "true")
    assert mapping.paths() == ("ended", "started", 'tags."gen_ai.model"', "cost", "meta.regions[0]", "kind")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "source: a\ncolumns:\n  event_time: t\n  input_token: x\n",
            "line 4: columns.input_token: input_token is not a field",
        ),
        ("source: a\ncolumns:\n  event_time: t\n  input_token: x\n", "did you mean input_tokens?"),
        ("source: a\ncolums: {event_time: t}\n", "line 2: colums: there is no such setting; did you mean columns?"),
        ("source: a\ncolumns: {event_time: {form: t}}\n", "did you mean from?"),
        ("source: a\ncolumns: {model: m}\n", "line 2: columns: event_time must be mapped"),
        (
            "source: a\ncolumns:\n  event_time: {from: t, unit: cents}\n",
            "line 3: columns.event_time.unit: cents does not fit",
        ),
        ("source: a\ncolumns:\n  event_time: t\n  model: {from: m, unit: s}\n", "model takes no unit"),
        (
            "source: a\ncolumns:\n  event_time: t\n  org: {from: o, const: acme}\n",
            "line 4: columns.org: give either from",
        ),
        ("source: a\ncolumns:\n  event_time: t\n  org: {}\n", "line 4: columns.org: give either from"),
        ("source: a\ncolumns: {event_time: 'a..b'}\n", "is not a column or path"),
        ("columns: {event_time: t}\n", "source: this is needed"),
        ("source: 'a b'\ncolumns: {event_time: t}\n", "line 1: source"),
        ("source: a\nformat: xml\ncolumns: {event_time: t}\n", "line 2: format"),
        ("source: a\ncolumns:\n  event_time: t\n  event_time: u\n", "line 4: columns.event_time is given twice"),
        ("source: a\ncolumns: {event_time: t\n", "not valid YAML"),
        ("- a\n- b\n", "a mapping file holds source, columns"),
        ("", "a mapping file holds source, columns"),
        ("source: a\ncolumns: {event_time: t, attributes: x}\nattributes: {a: b}\n", "not both"),
    ],
)
def test_a_fault_is_told_with_file_line_field_and_the_likely_meaning(tmp_path: Path, text: str, complaint: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(MappingInvalid) as caught:
        load_mapping(path)
    assert str(path) in str(caught.value)
    assert complaint in str(caught.value)


def test_every_fault_of_a_mapping_is_told_at_once(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("source: a\nformt: csv\ncolumns:\n  event_time: t\n  modle: m\n")
    with pytest.raises(MappingInvalid) as caught:
        load_mapping(path)
    assert [line.split(": ")[0].split(", ")[-1] for line in str(caught.value).splitlines()] == ["line 5", "line 2"]


def test_an_unknown_name_is_told_with_the_known_ones():
    with pytest.raises(MappingInvalid, match="did you mean aider"):
        load_mapping("aidr")


def test_a_mapping_that_is_not_text_is_told(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"source: \xff\n")
    with pytest.raises(MappingInvalid, match="not UTF-8"):
        load_mapping(path)


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("a", (("a", ""),)),
        ("a.b_c.d", (("a", ""), ("b_c", ""), ("d", ""))),
        ('a."b.c".d', (("a", ""), ("b.c", ""), ("d", ""))),
        ("a[0].b[12][3]", (("a", "[0]"), ("b", "[12][3]"))),
        ("prompt tokens", (("prompt tokens", ""),)),
    ],
)
def test_a_path_is_taken_apart_into_steps(path: str, steps: tuple[tuple[str, str], ...]):
    assert path_steps(path) == steps


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", 'a."b', "a[x]", "a[0]b"])
def test_what_is_no_path_is_refused(path: str):
    with pytest.raises(ValueError, match="not a column or path"):
        path_steps(path)
