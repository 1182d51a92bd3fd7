"""FastChat's wire: the bodies of its controller's and its workers' routes, and its stream frames.

Source: fschat 0.2.36. A frame is one JSON object and one NUL byte; its ``text`` is cumulative.
Unknown fields are skipped, as FastChat skips them; fields that only we know are marked so, and
FastChat's own parts never see them.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

CONTENT_TYPE = "application/octet-stream"
MAX_FRAME = 16 * 1024 * 1024
NO_WORKER = 50005
WORKER_TIMEOUT = 50006

Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
Speed = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
Address = Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]


class BadFrame(ValueError):
    """A stream of frames is broken: no JSON, a wrong type, or one frame without an end."""


# Controller


class WorkerStatus(msgspec.Struct):
    """What a worker answers on ``/worker_get_status`` and sends when it registers.

    ``speed`` weighs a worker against others; FastChat's own always say 1. ``queue_length`` is
    the number of requests that run or wait. No model names is the same as no status at all.
    """

    model_names: list[Name] = []
    speed: Speed = 1
    queue_length: Count = 0


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """Ours: what a worker's model can do, null where the worker does not know.

    ``context_length`` is the tokens that a prompt and its answer share; ``vision`` is images in
    messages, ``json_output`` answers that are held to JSON.
    """

    context_length: Annotated[int, msgspec.Meta(ge=1)] | None = None
    tools: bool | None = None
    vision: bool | None = None
    json_output: bool | None = None


class Direct(msgspec.Struct, frozen=True):
    """Ours: a server beside the worker that answers OpenAI's routes by itself, under the worker's
    model names. ``url`` is without ``/v1``; ``salt`` is what its key is made of (``direct.py``).
    """

    url: Address
    salt: Annotated[str, msgspec.Meta(min_length=16, max_length=128)]


class OpsgptInfo(msgspec.Struct):
    """Ours: what a worker of this project adds to its registration.

    ``limit`` requests run at once; a beat comes every ``beat_interval`` seconds; ``launcher`` is
    the name of the launcher that can stop the worker, if one started it. Where there is a
    ``direct`` server, gateways send it what is OpenAI's, and the worker everything else.
    """

    kind: Literal["opsgpt"] = "opsgpt"
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 5
    beat_interval: Annotated[float, msgspec.Meta(ge=0.01, le=3600)] = 2.0
    launcher: Name | None = None
    version: str = ""
    abilities: Abilities = Abilities()
    direct: Direct | None = None


class RegisterWorker(msgspec.Struct):
    """``/register_worker``. Without a status the controller asks the worker itself."""

    worker_name: Address
    check_heart_beat: bool
    worker_status: WorkerStatus | None = None
    multimodal: bool = False
    opsgpt: OpsgptInfo | None = None


class Load(msgspec.Struct):
    """Ours: what a beat says beyond the queue's length; ``limit`` is how many may run at once,
    ``taken`` how many requests have come so far, ``memory`` the bytes that the worker has, 0 where
    it does not know."""

    running: Count
    waiting: Count
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    taken: Count | None = None
    memory: Annotated[int, msgspec.Meta(ge=0)] = 0


class HeartBeat(msgspec.Struct):
    """``/receive_heart_beat``; the answer is ``Exist``."""

    worker_name: Address
    queue_length: Count
    load: Load | None = None


class Exist(msgspec.Struct):
    """Whether the controller knows the worker; on false a worker registers again."""

    exist: bool


class ModelRequest(msgspec.Struct):
    """A body of which only the model's name counts (``/get_worker_address`` and others)."""

    model: str


class WorkerAddress(msgspec.Struct):
    """The answer of ``/get_worker_address``; empty when nobody serves the model."""

    address: str


class ModelList(msgspec.Struct):
    """The answer of ``/list_models`` and its two sisters."""

    models: list[str]


# Worker


class GenerateRequest(msgspec.Struct):
    """``/worker_generate_stream`` and ``/worker_generate``.

    The defaults are FastChat's, null means the default too. ``top_k`` -1 is off; ``echo`` repeats
    the prompt before the answer; ``logprobs`` is the number of alternatives for each token.
    """

    prompt: str
    model: str = ""
    temperature: float | None = 1.0
    top_p: float | None = 1.0
    top_k: int | None = -1
    presence_penalty: float | None = 0.0
    frequency_penalty: float | None = 0.0
    repetition_penalty: float | None = 1.0
    max_new_tokens: int | None = 256
    echo: bool | None = True
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    logprobs: int | None = None
    images: list[str] | None = None
    best_of: int | None = None
    use_beam_search: bool | None = None


class EmbeddingsRequest(msgspec.Struct):
    """``/worker_get_embeddings``; ``encoding_format`` is "float" (or null) or "base64": float32
    numbers, little end first."""

    input: list[str] | str
    model: str = ""
    encoding_format: str | None = None


class EmbeddingsReply(msgspec.Struct):
    """Vectors, or base64 strings where they were asked for, and the tokens of the input."""

    embedding: Sequence[list[float] | str]
    token_num: int


class CountTokenRequest(msgspec.Struct):
    """``/count_token``."""

    prompt: str
    model: str = ""


class CountTokenReply(msgspec.Struct):
    """The number of tokens in a prompt."""

    count: int
    error_code: int = 0


class Conversation(msgspec.Struct):
    """How FastChat's gateway makes one prompt of messages.

    ``sep_style`` is a number of FastChat's ``SeparatorStyle``; ``roles`` are the user's and the
    assistant's words; ``messages`` are pairs of role and text that come before the client's.
    """

    name: str
    system_template: str = "{system_message}"
    system_message: str = ""
    roles: tuple[str, str] = ("USER", "ASSISTANT")
    messages: list[tuple[str, str | None]] = []
    offset: int = 0
    sep_style: int = 1
    sep: str = "\n"
    sep2: str | None = None
    stop_str: str | list[str] | None = None
    stop_token_ids: list[int] | None = None


class ConversationReply(msgspec.Struct):
    """The answer of ``/worker_get_conv_template``."""

    conv: Conversation


class ModelDetails(msgspec.Struct):
    """The answer of ``/model_details``, in tokens."""

    context_length: int


class Frame(msgspec.Struct, omit_defaults=True):
    """One step of an answer: the text so far, or an error (``error_code`` not 0) and its text."""

    text: str
    error_code: int = 0
    usage: dict[str, Any] | None = None
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


def frame(body: Mapping[str, Any]) -> bytes:
    """``body`` as one frame on the wire."""
    return msgspec.json.encode(body) + b"\0"


class FrameDecoder:
    """Cuts a byte stream into frames, whatever the pieces are, holding at most ``limit`` bytes."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._decoder = msgspec.json.Decoder(Frame)

    @property
    def partial(self) -> bool:
        """Whether the stream stands in the middle of a frame: if it ends here, it was cut."""
        return bool(self._rest)

    def feed(self, piece: bytes) -> list[Frame]:
        """The frames that ``piece`` completes. Raises ``BadFrame``."""
        if b"\0" not in piece:
            self._keep(piece)
            return []
        first, *more = piece.split(b"\0")
        whole = [bytes(self._rest) + first, *more[:-1]]
        self._rest.clear()
        self._keep(more[-1])
        return [self._decode(one) for one in whole if one]

    def _keep(self, piece: bytes) -> None:
        self._rest += piece
        if len(self._rest) > self._limit:
            raise BadFrame(f"a frame is longer than {self._limit} bytes")

    def _decode(self, one: bytes) -> Frame:
        try:
            return self._decoder.decode(one)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadFrame(f"a frame is not what FastChat sends: {error}") from None
