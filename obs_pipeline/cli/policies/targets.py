"""The targets besides the ledger that the settings name, ready to be brought to what is in force."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError

if TYPE_CHECKING:
    from obs_pipeline.cli.workspace import Workspace
    from obs_pipeline.policy.targets import Behind, Target

_WAIT_SECONDS = 60.0


def followers(workspace: Workspace, *, resend: bool = False) -> list[Target]:
    """Every target that the settings name; none unless OBS_LITELLM_URL is set. ``resend``: take nothing as known there.

    Raises:
        ObsError: the settings of a target cannot be used.
    """
    settings = workspace.settings
    if settings.litellm_url is None:
        return []
    if settings.litellm_master_key is None:
        raise ObsError("OBS_LITELLM_URL is set and OBS_LITELLM_MASTER_KEY is not; set it to the key of a proxy admin.")
    from obs_pipeline.policy.litellm_api import ManagementApi
    from obs_pipeline.policy.litellm_proxy import LiteLLMTarget
    from obs_pipeline.storage.locks import exclusive
    from obs_pipeline.storage.policy_store import PolicyStore
    from obs_pipeline.storage.target_store import TargetStore

    api = ManagementApi(settings.litellm_url, settings.litellm_master_key)
    alone = partial(exclusive, settings.home / "locks", "litellm", wait_seconds=_WAIT_SECONDS)
    ledger = workspace.ledger
    return [LiteLLMTarget(api, PolicyStore(ledger), TargetStore(ledger), utc_now, alone, resend=resend)]


def late_targets(workspace: Workspace) -> list[Behind]:
    """The targets that do not hold what is in force, by what the ledger knows; they are not asked."""
    if workspace.settings.litellm_url is None:
        return []
    from obs_pipeline.policy.targets import behind
    from obs_pipeline.storage.policy_store import PolicyStore
    from obs_pipeline.storage.target_store import TargetStore

    head = PolicyStore(workspace.ledger).head()
    return list(behind(["litellm"], TargetStore(workspace.ledger).states(), 0 if head is None else head.revision))
