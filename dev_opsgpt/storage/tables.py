"""The tables, as the newest migration leaves them; a test compares the two.

Times are Unix seconds. Nothing refers to anything by a constraint: usage is written in bulk, and
outlives the keys.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)

metadata = MetaData()

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    # The key's row in the table of counters that the gateway's processes share; never used again.
    Column("number", Integer, nullable=False, unique=True),
    # SHA-256 of the key, in hexadecimal digits. The key itself is nowhere.
    Column("hash", Text, nullable=False, unique=True),
    # The hash that a rotation replaced, and until when it is still good.
    Column("old_hash", Text, unique=True),
    Column("old_until", Double),
    # The first characters of the key, by which people tell it.
    Column("prefix", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("owner", Text, nullable=False, index=True),
    # A list of names; NULL: every model.
    Column("models", JSON(none_as_null=True)),
    Column("priority", Integer, nullable=False),
    Column("rpm", Integer),
    Column("tpm", Integer),
    Column("concurrent", Integer),
    Column("budget", Double),
    # total, day or month.
    Column("budget_period", Text, nullable=False),
    Column("expires_at", Double),
    Column("created_at", Double, nullable=False),
    Column("rotated_at", Double),
    Column("revoked_at", Double),
)

# One row, counted up with every change to the keys: what gateways look at to see whether they have
# to read them again.
keys_version = Table(
    "keys_version",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
)

# One row a request; the columns are those of protocol/record.py:Record.
usage = Table(
    "usage",
    metadata,
    # SQLite numbers the rows by itself only where the type is exactly this one.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("at", Double, nullable=False),
    # The key's id; empty for none.
    Column("key", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("served", Text, nullable=False),
    Column("replica", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("status", Integer, nullable=False),
    Column("error", Text),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("cost", Double),
    Column("attempts", Integer, nullable=False),
    Column("queued", Double, nullable=False),
    Column("first_token", Double),
    Column("generating", Double),
    Column("duration", Double, nullable=False),
    Index("ix_usage_at", "at"),
    # A key's spending since the beginning of its period.
    Index("ix_usage_key_at", "key", "at"),
)
