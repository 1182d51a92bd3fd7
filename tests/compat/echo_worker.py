"""Runs in fschat's environment: a subclass of its BaseModelWorker that repeats the prompt's words.

What people who wrote a worker of their own for FastChat have; it needs no torch.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastchat.conversation import Conversation, SeparatorStyle
from fastchat.serve import base_model_worker
from fastchat.serve.base_model_worker import BaseModelWorker


class Words:
    """A tokenizer: a token a word."""

    def num_tokens(self, prompt: str) -> int:
        return len(prompt.split())


class EchoWorker(BaseModelWorker):
    """Says the prompt again, a word a frame."""

    def make_conv_template(self, conv_template: Any = None, model_path: Any = None) -> Conversation:
        return Conversation(
            name="echo",
            roles=("[U]", "[A]"),
            sep_style=SeparatorStyle.NO_COLON_SINGLE,
            sep=" | ",
        )

    def generate_stream_gate(self, params: dict[str, Any]) -> Iterator[bytes]:
        words = params["prompt"].split()
        if "fail" in words:
            yield json.dumps({"text": "told to fail", "error_code": 42901}).encode() + b"\0"
            return
        text = ""
        for word in words:
            text += f"{word} "
            yield json.dumps({"text": text, "error_code": 0}).encode() + b"\0"
        yield json.dumps({"text": text, "error_code": 0, "finish_reason": "stop"}).encode() + b"\0"

    def generate_gate(self, params: dict[str, Any]) -> Any:
        *_, last = self.generate_stream_gate(params)
        return json.loads(last[:-1])

    def get_embeddings(self, params: dict[str, Any]) -> Any:
        return {"embedding": [[1.0, 0.0] for _ in params["input"]], "token_num": 1}


parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
parser.add_argument("--controller-address")
parser.add_argument("--worker-address")
arguments = parser.parse_args()
worker = EchoWorker(
    arguments.controller_address, arguments.worker_address, "echo-1", "echo", ["echo"], 5
)
worker.tokenizer, worker.context_len = Words(), 100
worker.init_heart_beat()
uvicorn.run(base_model_worker.app, host="127.0.0.1", port=arguments.port)
