"""What the admin API takes and gives."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from dev_opsgpt.gateway.key import Key
from dev_opsgpt.gateway.limits.lease import Used
from dev_opsgpt.routing.limits import Period

MOST = 2**31 - 1
# 9999-12-31, the last day that dates can name.
LAST_DAY = 253402214400.0

# No control characters: names are printed on terminals, and PostgreSQL takes no NUL.
PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"
Text = Annotated[str, StringConstraints(max_length=200, pattern=PRINTABLE)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=PRINTABLE)]
Models = Annotated[list[ModelName], Field(min_length=1, max_length=1000)]
Count = Annotated[int, Field(ge=1, le=MOST)]
Priority = Annotated[int, Field(ge=-1000, le=1000)]
Amount = Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)]
Moment = Annotated[float, Field(gt=0, le=LAST_DAY, allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class CreateKey(_Body):
    """A key to be made; all of it may be left out."""

    name: Text = ""
    """What people call it."""
    owner: Text = ""
    """Whom it is made for; usage can be asked for by owner."""
    models: Models | None = None
    """The models that it may ask; null: all."""
    priority: Priority = 0
    """Of two requests that wait in the gateway, the one with the higher goes first."""
    rpm: Count | None = None
    """Requests in any minute."""
    tpm: Count | None = None
    """Tokens in any minute, those of the prompt and of the answer together."""
    concurrent: Count | None = None
    """Requests at the same time."""
    budget: Amount | None = None
    """What may be spent in each `budget_period`, in the unit of the price table."""
    budget_period: Period = "total"
    """Whether the budget is for ever, or anew each day or month (UTC)."""
    expires_at: Moment | None = None
    """Unix time at which the key ends; null: never."""


class UpdateKey(CreateKey):
    """What is to be changed; what is left out stays as it is."""


class RotateKey(_Body):
    """How a key is to be given a new text."""

    grace: Annotated[float, Field(ge=0, le=366 * 86400, allow_inf_nan=False)] = 0.0
    """Seconds that the old text stays good."""


class UsedNow(BaseModel):
    """What a key uses of its limits now; null for a limit that it does not have."""

    requests: int | None = None
    """Requests of the last minute."""
    tokens: int | None = None
    """Tokens of the last minute."""
    concurrent: int | None = None
    """Requests in flight."""
    spent: float | None = None
    """What was spent of the budget in its period."""

    @classmethod
    def of(cls, key: Key, used: Used) -> "UsedNow":
        """What is counted of a key, where it has a limit for it."""
        return cls(
            requests=used.requests if key.rpm is not None else None,
            tokens=used.tokens if key.tpm is not None else None,
            concurrent=used.concurrent if key.concurrent is not None else None,
            spent=used.spent if key.budget is not None else None,
        )


class ShownKey(BaseModel):
    """A key as people see it: everything but its text."""

    id: str
    object: Literal["key"] = "key"
    prefix: str
    """The first characters of its text."""
    name: str
    owner: str
    models: list[str] | None
    priority: int
    rpm: int | None
    tpm: int | None
    concurrent: int | None
    budget: float | None
    budget_period: Period
    expires_at: float | None
    created_at: float
    rotated_at: float | None
    revoked_at: float | None
    old_until: float | None
    """Until when the text before the last rotation is good too."""
    active: bool
    """Whether it is good now."""
    used: UsedNow


class CreatedKey(ShownKey):
    """A key that was just made or rotated, with its text."""

    key: str
    """The text. It cannot be shown again."""


class KeyList(BaseModel):
    """Keys, the oldest first."""

    object: Literal["list"] = "list"
    data: list[ShownKey]
    has_more: bool
    """Whether there are more behind the last one."""
