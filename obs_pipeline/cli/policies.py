"""``obs-pipeline policies``: the list of its commands.

Are the files in order, what holds and why, what would a change do, put it into force, what was in force, who did it, and
where do budgets stand: each question has its own module.
"""

from __future__ import annotations

from typing import Final

import typer

from obs_pipeline.cli import (
    policy_audit,
    policy_changes,
    policy_checks,
    policy_effective,
    policy_history,
    policy_status,
    policy_sync,
)

app: Final = typer.Typer(
    name="policies",
    help="Budget policies as code: check them, put them into force, see what holds and what ever held.",
    no_args_is_help=True,
)
app.command("validate")(policy_checks.validate)
app.command("lint")(policy_checks.lint)
app.command("test")(policy_checks.run_tests)
app.command("schema")(policy_checks.schema)
app.command("effective")(policy_effective.effective)
app.command("diff")(policy_changes.diff)
app.command("replay")(policy_changes.replay)
app.command("sync")(policy_sync.sync)
app.command("rollback")(policy_sync.rollback)
app.command("history")(policy_history.history)
app.command("applied")(policy_history.applied)
app.add_typer(policy_audit.app)
app.command("status")(policy_status.status)
app.command("litellm")(policy_status.litellm)
