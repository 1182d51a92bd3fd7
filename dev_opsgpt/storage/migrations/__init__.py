"""How the tables came to be what they are: one file a step in ``versions``, written by hand.

A new step is a new file whose ``down_revision`` is the one before. Steps are applied by
``Database.upgrade`` and never changed once they are released; there is no way back.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from dev_opsgpt.storage.errors import StorageError


def migrate(connection: Connection) -> None:
    """Applies the steps that are missing, in the connection's transaction. Raises
    ``StorageError`` when a newer release has written to the database."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)

    def missing(revision: Any, _: Any) -> Iterable[Any]:
        return script._upgrade_revs("head", revision)

    with EnvironmentContext(config, script, fn=missing) as environment:
        environment.configure(connection=connection)
        try:
            environment.run_migrations()
        except CommandError:
            raise StorageError(
                "The database was written by a newer release of OpsGPT Serve; use that one."
            ) from None
