from __future__ import annotations

from dataclasses import fields, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.policy.applied import FieldEdit, content_of, digest_of, edits
from obs_pipeline.policy.audit import (
    START,
    Draft,
    ExportError,
    canonical,
    chained,
    exported,
    history,
    read_export,
    revision_detail,
    verify,
)
from obs_pipeline.storage.policy_store import AuditEntry, PolicyVersion, Revision
from obs_pipeline_tests.policy.trees import AGENT, cost, policy

NOON = datetime(2026, 3, 2, 12)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1))
words = st.text(st.characters(codec="utf-8"), max_size=8)
details = st.dictionaries(words, st.none() | st.integers() | words | st.lists(words, max_size=2), max_size=3)
drafts = st.builds(
    Draft,
    moments,
    words,
    st.sampled_from(["force"]),
    words,
    st.integers(1, 5),
    details,
)
logs = st.lists(drafts, min_size=1, max_size=8).map(lambda some: list(chained(None, some)))


def draft(action="force", subject="", revision=1, **detail) -> Draft:
    return Draft(NOON, "ann", action, subject, revision, detail)


@given(logs)
def test_a_log_that_nobody_touched_holds(log: list[AuditEntry]):
    verdict = verify(log)
    assert verdict.holds
    assert (verdict.entries, verdict.head) == (len(log), log[-1].digest)


@given(st.lists(drafts, max_size=6), st.lists(drafts, max_size=6))
def test_a_log_written_in_two_goes_is_the_log_written_in_one(first: list[Draft], second: list[Draft]):
    begun = list(chained(None, first))
    assert begun + list(chained(begun[-1] if begun else None, second)) == list(chained(None, first + second))


@given(logs, st.data())
def test_an_altered_field_of_any_entry_is_found(log: list[AuditEntry], data: st.DataObject):
    at = data.draw(st.integers(0, len(log) - 1))
    name = data.draw(st.sampled_from([field.name for field in fields(AuditEntry)]))
    before = getattr(log[at], name)
    other = {int: st.integers(0, 99), datetime: moments, str: words}[type(before)]
    log[at] = replace(log[at], **{name: data.draw(other.filter(lambda value: value != before))})
    broken = verify(log).broken
    assert broken is not None
    assert broken.entry == at + 1


@given(logs, st.data())
def test_an_altered_entry_with_a_digest_computed_anew_breaks_the_next(log: list[AuditEntry], data: st.DataObject):
    at = data.draw(st.integers(0, len(log) - 1))
    last = log[at - 1] if at else None
    forged = draft(subject="forged")
    seen = log[-1].digest
    log[at] = next(iter(chained(last, [forged])))
    broken = verify(log, expected=seen).broken
    assert broken is not None
    assert broken.entry == (at + 2 if at + 1 < len(log) else None)


@given(logs, st.data())
def test_a_removed_entry_is_found(log: list[AuditEntry], data: st.DataObject):
    seen = log[-1].digest
    at = data.draw(st.integers(0, len(log) - 1))
    del log[at]
    broken = verify(log, expected=seen).broken
    assert broken is not None
    assert broken.entry == (at + 1 if at < len(log) else None)


@given(logs.filter(lambda log: len(log) > 1), st.data())
def test_entries_in_another_order_are_found(log: list[AuditEntry], data: st.DataObject):
    other = data.draw(st.permutations(log).filter(lambda some: some != log))
    assert not verify(other).holds
    # Numbered anew they are in order again, and still do not follow each other.
    assert not verify([replace(entry, entry=number) for number, entry in enumerate(other, 1)]).holds


@given(logs, drafts, st.data())
def test_an_entry_put_in_is_found(log: list[AuditEntry], extra: Draft, data: st.DataObject):
    at = data.draw(st.integers(0, len(log) - 1))
    put_in = next(iter(chained(log[at - 1] if at else None, [extra])))
    assert not verify([*log[:at], put_in, *log[at:]]).holds


@given(logs)
def test_a_log_that_grew_still_has_every_digest_it_had(log: list[AuditEntry]):
    grown = [*log, *chained(log[-1], [draft()])]
    assert all(verify(grown, expected=entry.digest).holds for entry in log)
    assert not verify(log, expected=grown[-1].digest).holds


def test_an_empty_log_holds_and_starts_the_chain():
    assert verify([]).holds
    assert verify([]).head == START
    assert next(iter(chained(None, [draft()]))).previous == START


def applied_once(content: str | None = "{}") -> tuple[list[AuditEntry], list[PolicyVersion], list[Revision]]:
    digest = "" if content is None else digest_of(content)
    version = PolicyVersion("a", 1, 1, content, digest, "org.yaml", 1)
    bare = Revision(1, "sync", "ann", "launch", NOON, False, 1, "d", "f", 0, "")
    log = list(
        chained(
            None,
            [
                draft("create", "a", before=None, after={"version": 1, "digest": digest}),
                Draft(NOON, "ann", "sync", "", 1, revision_detail(bare)),
            ],
        )
    )
    return log, [version], [replace(bare, audit_entry=2, audit_digest=log[-1].digest)]


@pytest.mark.parametrize("content", ["{}", None])
def test_versions_and_revisions_hold_with_the_log(content: str | None):
    assert verify(*applied_once(content)).holds


@pytest.mark.parametrize(
    ("change", "entry", "says"),
    [
        ({"content": '{"limit":1}'}, 1, "says something else in the ledger"),
        ({"content": '{"limit":1}', "digest": digest_of('{"limit":1}')}, 1, "says something else in the ledger"),
        ({"content": None, "digest": ""}, 1, "says something else in the ledger"),
        ({"revision": 2}, 1, "says something else in the ledger"),
        ({"version": 2}, None, "never tells of it"),
        ({"policy_id": "b"}, None, "never tells of it"),
    ],
)
def test_an_altered_version_is_found(change: dict, entry: int | None, says: str):
    log, versions, revisions = applied_once()
    broken = verify(log, [replace(versions[0], **change)], revisions).broken
    assert broken is not None
    assert broken.entry == entry
    assert says in str(broken)


@pytest.mark.parametrize(
    "change",
    [
        {"author": "eve"},
        {"reason": "none"},
        {"applied_at": NOON + timedelta(microseconds=1)},
        {"kind": "rollback"},
        {"forced": True},
        {"policies": 2},
        {"digest": "e"},
        {"files_digest": "e"},
        {"audit_entry": 1},
        {"audit_digest": "e"},
        {"revision": 2},
    ],
)
def test_an_altered_revision_is_found(change: dict):
    log, versions, revisions = applied_once()
    broken = verify(log, versions, [replace(revisions[0], **change)]).broken
    assert broken is not None
    assert "revision" in str(broken)


def test_a_removed_version_or_revision_is_found():
    log, versions, revisions = applied_once()
    assert str(verify(log, [], revisions).broken).startswith("entry 1: tells of version 1 of policy a")
    assert str(verify(log, versions, []).broken).startswith("entry 2: tells of revision 1")


def test_a_log_cut_off_at_its_end_leaves_a_revision_that_nobody_tells_of():
    log, versions, revisions = applied_once()
    assert "never tells of it" in str(verify(log[:1], versions, revisions).broken)
    assert "never tells of it" in str(verify([], versions, revisions).broken)


@given(logs)
def test_an_export_read_back_is_the_log(log: list[AuditEntry]):
    assert list(read_export(exported(log), "log.jsonl")) == log


@pytest.mark.parametrize("line", ["nonsense", "[]", "{}", '{"at": 1}', '{"at": "2026-01-01", "more": 1}'])
def test_a_line_that_is_no_entry_is_named(line: str):
    with pytest.raises(ExportError, match=r"log\.jsonl:1: not an entry"):
        read_export(line, "log.jsonl")


def test_canonical_json_has_one_spelling():
    assert canonical({"b": 1, "a": "é"}) == canonical({"a": "é", "b": 1}) == '{"a":"\\u00e9","b":1}'


def test_a_history_tells_what_each_version_changed():
    first, second = (content_of(policy(AGENT, budgets={"cost": cost(limit)}).policy) for limit in (5, 7))
    contents = [first, second, None, first]
    versions = [PolicyVersion("agent", n, n, content, "", "a.yaml", 1) for n, content in enumerate(contents, 1)]
    revisions = {n: Revision(n, "sync", f"p{n}", "", NOON, False, 1, "", "", 0, "") for n in range(1, 5)}
    created, raised, removed, again = history(reversed(versions), revisions)
    assert raised.fields == (FieldEdit("budgets.cost.daily.limit", "5", "7"),)
    assert [step.author for step in (created, raised, removed, again)] == ["p1", "p2", "p3", "p4"]
    assert (removed.removed, again.removed) == (True, False)
    assert {each.field for each in removed.fields} == {each.field for each in created.fields}
    assert all(each.after is None for each in removed.fields)
    assert again.fields == created.fields


def test_edits_name_limits_by_their_period_and_lists_as_a_whole():
    before = {"cost": [{"period": "daily", "limit": "1"}], "channels": ["widget"], "kept": 1}
    after = {"cost": [{"period": "weekly", "limit": "2"}], "channels": ["widget", "slack"], "kept": 1}
    assert edits(before, after) == (
        FieldEdit("cost.daily.period", "daily", None),
        FieldEdit("cost.daily.limit", "1", None),
        FieldEdit("channels", ["widget"], ["widget", "slack"]),
        FieldEdit("cost.weekly.period", None, "weekly"),
        FieldEdit("cost.weekly.limit", None, "2"),
    )
