"""``obs-pipeline policies``: the list of its commands.

Are the files in order, what holds and why, what would a change do, put it into force, what was in force, who did it, and
where do budgets stand: each question has its own module.
"""

from __future__ import annotations

from typing import Final

import typer

from obs_pipeline.cli.policies import (
    audit,
    changes,
    checks,
    effective,
    history,
    status,
    sync,
)

app: Final = typer.Typer(
    name="policies",
    help="Budget policies as code: check them, put them into force, see what holds and what ever held.",
    no_args_is_help=True,
)
app.command("validate")(checks.validate)
app.command("lint")(checks.lint)
app.command("test")(checks.run_tests)
app.command("schema")(checks.schema)
app.command("effective")(effective.effective)
app.command("diff")(changes.diff)
app.command("replay")(changes.replay)
app.command("sync")(sync.sync)
app.command("rollback")(sync.rollback)
app.command("history")(history.history)
app.command("applied")(history.applied)
app.add_typer(audit.app)
app.command("status")(status.status)
app.command("litellm")(status.litellm)
