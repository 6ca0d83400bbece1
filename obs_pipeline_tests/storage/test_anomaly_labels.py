from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from obs_pipeline.storage.anomaly_labels import AnomalyLabel, AnomalyLabels, Verdict
from obs_pipeline.storage.ledger import Ledger

NOON = datetime(2026, 3, 1, 12)


def label(anomaly: str, verdict: Verdict, at: datetime = NOON) -> AnomalyLabel:
    return AnomalyLabel(anomaly, verdict, "acme", None, "bot", "cost", "hour", NOON, "ada", "", at)


def test_the_last_word_on_an_anomaly_stands_and_unknown_names_stay_unknown(tmp_path: Path):
    labels = AnomalyLabels(Ledger(f"sqlite:///{tmp_path / 'l.db'}"))
    assert labels.standing() == []
    first, other = label("an-1", "real"), label("an-2", "planned")
    labels.add([first, other])
    changed = label("an-1", "false_positive", NOON - timedelta(days=1))
    changed = replace(changed, ends=NOON)
    labels.add([changed])
    assert labels.standing() == [other, changed]
    assert labels.verdicts(["an-1", "an-3"]) == {"an-1": "false_positive"}
    assert labels.verdicts([]) == {}
    labels.add([])
    assert labels.standing() == [other, changed]
