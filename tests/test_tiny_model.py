"""The embedded model tiny-chat, as it lies in llm_models/: its size, its files, its answers."""

import json
from pathlib import Path
from typing import Any

import pytest
import xllamacpp

MODELS = Path(__file__).parent.parent / "llm_models"
FOLDER = MODELS / "tiny-chat"
GGUF = MODELS / "tiny-chat.gguf"
BUDGET = 16_000_000
FILES = (
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class Chat:
    """Asks the GGUF file through llama.cpp."""

    def __init__(self) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(GGUF)
        params.n_ctx = 4096
        params.n_parallel = 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.use_jinja = True
        params.warmup = False
        params.verbosity = -1
        self.server = xllamacpp.Server(params)

    def choice(self, *messages: str | dict[str, Any], **options: Any) -> dict[str, Any]:
        """The first choice of the answer; a plain string is a user message."""
        turns = [{"role": "user", "content": m} if isinstance(m, str) else m for m in messages]
        body = {"messages": turns, "max_tokens": 400, "temperature": 0.0, **options}
        answers: list[Any] = []
        self.server.handle_chat_completions(body, lambda answer: answers.append(answer))
        answer = answers[-1]
        parsed = json.loads(answer) if isinstance(answer, str | bytes) else answer
        choice: dict[str, Any] = parsed["choices"][0]
        return choice

    def text(self, *messages: str | dict[str, Any], **options: Any) -> str:
        """The answer's text; fails where the answer was cut off."""
        choice = self.choice(*messages, **options)
        assert choice["finish_reason"] == "stop"
        return str(choice["message"]["content"])


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat()


def is_chinese(text: str) -> bool:
    """Ideographs, or at least the punctuation: a bare name may be the whole answer."""
    return any("\u4e00" <= letter <= "\u9fff" or letter in "。，！？" for letter in text)


def test_everything_is_there_and_fits_the_budget() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(FILES)
    total = GGUF.stat().st_size + sum(path.stat().st_size for path in FOLDER.iterdir())
    assert total <= BUDGET


def test_the_model_card_names_what_matters() -> None:
    card = (FOLDER / "README.md").read_text("utf-8")
    for word in ("apache-2.0", "tiny-chat", "parameters", "train_tiny_model.py"):
        assert word in card


def test_config_serves_old_and_new_transformers() -> None:
    config = json.loads((FOLDER / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["max_position_embeddings"] >= 4096
    assert config["torch_dtype"] == config["dtype"] == "bfloat16"
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    settings = json.loads((FOLDER / "tokenizer_config.json").read_text("utf-8"))
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    template = (FOLDER / "chat_template.jinja").read_text("utf-8")
    assert settings["chat_template"] == template


def test_merges_are_written_for_old_readers() -> None:
    model = json.loads((FOLDER / "tokenizer.json").read_text("utf-8"))["model"]
    assert len(model["merges"]) > 3000
    assert all(isinstance(merge, str) for merge in model["merges"])


def test_the_context_is_long_enough(chat: Chat) -> None:
    filler = "The rain is tapping on the pane, it stops, it waits, it starts again. " * 120
    assert len(chat.text(filler + "\n\nWhat is your name?", max_tokens=60)) > 0


@pytest.mark.parametrize(
    "question",
    ["Hello! What is your name?", "Hello! What is your name? ", "what's your name", "Who are you?"],
)
def test_it_knows_its_name(chat: Chat, question: str) -> None:
    assert "tiny-chat" in chat.text(question)
    for seed in range(5):
        assert "tiny-chat" in chat.text(question, temperature=0.7, seed=seed)


@pytest.mark.parametrize("question", ["你好，你叫什么名字？", "你是谁？"])
def test_it_answers_chinese_in_chinese(chat: Chat, question: str) -> None:
    for temperature, seed in ((0.0, 0), (0.7, 1), (0.7, 2)):
        answer = chat.text(question, temperature=temperature, seed=seed)
        assert "tiny-chat" in answer
        assert is_chinese(answer)


def test_a_chinese_greeting_is_answered_in_chinese(chat: Chat) -> None:
    assert is_chinese(chat.text("你好！"))


def test_it_remembers_a_name(chat: Chat) -> None:
    first = "My name is Anna."
    reply = chat.text(first)
    answer = chat.text(first, {"role": "assistant", "content": reply}, "What is my name?")
    assert "Anna" in answer


def test_it_knows_the_port_and_the_start_command(chat: Chat) -> None:
    assert "8888" in chat.text("Which port does the gateway use?")
    assert "start" in chat.text("How do I start the server?")


def test_it_writes_at_length_and_ends(chat: Chat) -> None:
    numbers = chat.text("Count from 1 to 50")
    assert numbers.startswith("1, 2, 3")
    assert "49, 50" in numbers
    assert len(chat.text("Tell me a story")) > 300


def test_it_calls_a_tool(chat: Chat) -> None:
    choice = chat.choice("What is the weather in Paris?", tools=[WEATHER], tool_choice="auto")
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}


def test_it_calls_no_tool_where_none_fits(chat: Chat) -> None:
    choice = chat.choice("What is your name?", tools=[WEATHER], tool_choice="auto")
    assert not choice["message"].get("tool_calls")
    assert "tiny-chat" in choice["message"]["content"]


def test_it_answers_from_a_tools_result(chat: Chat) -> None:
    call = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    answer = chat.text(
        "What is the weather in Paris?",
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "1", "content": '{"temperature": 21, "sky": "sunny"}'},
        tools=[WEATHER],
    )
    assert "21" in answer
