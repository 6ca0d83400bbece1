"""A process that delivers what is due, for tests that kill it: ``fault_worker LEDGER SERVER START SEED``.

Its clock starts at START and leaps ahead between rounds, so that waiting for a retry takes no time. It prints its time
at the beginning of every round and ends when nothing is left.
"""

from __future__ import annotations

import random
import sys
import time
from datetime import datetime, timedelta

from pydantic import SecretStr

from obs_pipeline.alerting.channels import SlackWebhook
from obs_pipeline.alerting.delivery import Courier, deliver_due
from obs_pipeline.alerting.models import Receiver
from obs_pipeline.alerting.records import notification_of
from obs_pipeline.alerting.trackers import GitHubTracker
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.ledger import Ledger

LEAP = timedelta(minutes=10)


def main(ledger: str, server: str, start: str, seed: str) -> None:
    store, chance = AlertStore(Ledger(ledger)), random.Random(int(seed))
    began, leapt = time.monotonic(), timedelta()

    def clock() -> datetime:
        return datetime.fromisoformat(start) + leapt + timedelta(seconds=time.monotonic() - began)

    def webhook(receiver: Receiver) -> SlackWebhook:
        return SlackWebhook(SecretStr(f"{server}/hook/{receiver.name}"), timeout=1.0)

    tracker = GitHubTracker("acme/ops", SecretStr("token"), server)
    courier = Courier(store, webhook, lambda _: tracker)
    while store.outbox("due"):
        print(clock().isoformat(), flush=True)
        deliver_due(store, courier, notification_of, f"worker-{seed}", clock, chance, limit=1000)
        leapt += LEAP


if __name__ == "__main__":
    main(*sys.argv[1:])
