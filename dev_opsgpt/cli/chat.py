"""A chat in the terminal: streams the answers, keeps the history."""

import sys
from collections.abc import Callable, Generator
from contextlib import closing

import msgspec

from dev_opsgpt.cli.errors import CliError
from dev_opsgpt.cli.http import Api
from dev_opsgpt.protocol.sse import Decoder

HELP = "/reset forgets what was said, /exit (or Ctrl-D) leaves, Ctrl-C stops an answer."
PROMPT = "> "
DONE = b"[DONE]"

Write = Callable[[str], None]


class Chat:
    """One conversation with a model. ``write`` gets the pieces of answers."""

    def __init__(self, api: Api, model: str, system: str | None, write: Write) -> None:
        self._api = api
        self._model = model
        self._write = write
        self._first = [{"role": "system", "content": system}] if system else []
        self.messages: list[dict[str, str]] = list(self._first)

    def reset(self) -> None:
        """Forgets everything but the system message."""
        self.messages = list(self._first)

    def ask(self, text: str) -> None:
        """Says something and writes the answer as it comes. Ctrl-C ends the answer; what came of
        it is kept. Raises ``CliError``, and has then forgotten the question."""
        self.messages.append({"role": "user", "content": text})
        answer = ""
        try:
            with closing(self._pieces()) as pieces:
                for piece in pieces:
                    answer += piece
                    self._write(piece)
        except KeyboardInterrupt:
            self._write(" [stopped]")
        except CliError:
            self.messages.pop()
            raise
        self._write("\n")
        if answer:
            self.messages.append({"role": "assistant", "content": answer})
        else:
            self.messages.pop()

    def _pieces(self) -> Generator[str, None, None]:
        body = {"model": self._model, "messages": self.messages, "stream": True}
        decoder = Decoder()
        with closing(self._api.stream("/chat/completions", body)) as stream:
            for data in stream:
                for event in decoder.feed(data):
                    if event == DONE:
                        return
                    yield _content(event)
        raise CliError("The answer broke off.")


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _Error(msgspec.Struct):
    message: str = "no reason given"


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    error: _Error | None = None


def _content(event: bytes) -> str:
    try:
        chunk = msgspec.json.decode(event, type=_Chunk)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise CliError("The answer is not in OpenAI's form.") from None
    if chunk.error is not None:
        raise CliError(f"The answer broke off: {chunk.error.message}")
    return "".join(choice.delta.content or "" for choice in chunk.choices)


def pick_model(api: Api, wanted: str | None, preferred: str) -> str:
    """The model to talk to: the one that was named, else ``preferred`` if it is served, else the
    first that is. Raises ``CliError`` where none is."""
    if wanted is not None:
        return wanted
    names = api.models()
    if not names:
        raise CliError("No model is served at the moment.")
    return preferred if preferred in names else names[0]


def converse(chat: Chat, read: Callable[[], str], tell: Write) -> None:
    """Reads lines until /exit or the end of input. An error ends an answer, not the chat."""
    tell(HELP)
    while True:
        try:
            text = read().strip()
        except EOFError:
            tell("")
            return
        except KeyboardInterrupt:
            tell(f"\n{HELP}")
            continue
        if text == "/exit":
            return
        if text == "/reset":
            chat.reset()
        elif text.startswith("/"):
            tell(HELP)
        elif text:
            try:
                chat.ask(text)
            except CliError as error:
                tell(str(error))


def write_safely(text: str) -> None:
    """Writes a piece of an answer at once. On a terminal without control characters: a model's
    words must not move the cursor or set the title."""
    if sys.stdout.isatty():
        text = "".join(char for char in text if char.isprintable() or char in "\n\t")
    sys.stdout.write(text)
    sys.stdout.flush()
