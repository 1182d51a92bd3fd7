"""What a command says when it cannot do what it was asked for."""


class CliError(Exception):
    """A command cannot be carried out; the message is for a person, without a traceback."""
