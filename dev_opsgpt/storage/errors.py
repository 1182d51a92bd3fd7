"""What storage raises."""


class StorageError(Exception):
    """The database cannot be used; the message is one line and holds no credential."""
