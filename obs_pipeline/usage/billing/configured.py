"""The bills that are pulled, as ``bills.yaml`` configures them, and how far a bill may be off. No connections, no positions.

version: 1
bills:
  openai:
    kind: openai_costs                 # or anthropic_costs
    key_file: /run/secrets/openai      # holds an admin key, less white space at its ends
    since: 2026-01-01                  # the first day that is fetched (UTC)
    restated_days: 5                   # fetched again each time: sellers correct their bills
    org: acme                          # whose calls it bills; everyone's, if left out
    projects: {proj_abc: atlas}        # our names of the projects or workspaces it names by id
tolerance: {share: 0.02, usd: 1}       # a day may be off by so much of what was billed, or by so many dollars
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from obs_pipeline.errors import ObsError
from obs_pipeline.usage.billing import anthropic_bill, openai_bill
from obs_pipeline.usage.pulling.configured import without_password
from obs_pipeline.yaml_settings import read_settings

BillKind = Literal["openai_costs", "anthropic_costs"]
SELLER_OF: Final[dict[BillKind, str]] = {"openai_costs": openai_bill.SELLER, "anthropic_costs": anthropic_bill.SELLER}
_HOME_OF: Final[dict[BillKind, str]] = {
    "openai_costs": "https://api.openai.com",
    "anthropic_costs": "https://api.anthropic.com",
}


class BillsInvalid(ObsError):
    """A ``bills.yaml`` that cannot be used; the message names the file and the field."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PulledBill(_Strict):
    """One bill that is pulled. Days are UTC."""

    kind: BillKind
    url: Annotated[str, StringConstraints(pattern=r"^https?://"), AfterValidator(without_password)] | None = None
    key_file: Path
    since: date
    restated_days: Annotated[int, Field(ge=0, le=90)] = 5
    timeout_seconds: Annotated[int, Field(ge=1, le=3_600)] = 60
    org: str | None = None
    projects: dict[str, str] = {}

    @property
    def seller(self) -> str:
        return SELLER_OF[self.kind]

    @property
    def home(self) -> str:
        return self.url or _HOME_OF[self.kind]

    def key(self) -> str:
        """The admin key.

        Raises:
            BillsInvalid: its file cannot be read.
        """
        try:
            return self.key_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise BillsInvalid(f"{self.key_file}: {error.strerror}. It should hold an admin key.") from None


class Tolerance(_Strict):
    """How far captured and billed may be apart on a day: a share of what was billed or an amount, whichever is more."""

    share: Annotated[Decimal, Field(ge=0, le=1)] = Decimal("0.02")
    usd: Annotated[Decimal, Field(ge=0)] = Decimal(1)


BillName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]


class Bills(_Strict):
    """The file, as it says."""

    version: Literal[1] = 1
    bills: dict[BillName, PulledBill] = {}
    tolerance: Tolerance = Tolerance()


def read_bills(path: Path) -> Bills:
    """What a file says; a file that is not there names no bill.

    Raises:
        BillsInvalid: the file cannot be read, or not used.
    """
    return read_settings(path, Bills, BillsInvalid)
