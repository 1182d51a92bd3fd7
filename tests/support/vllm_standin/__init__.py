"""A small program in vLLM's place: the base has no vLLM, and ``make test-vllm`` has the real one.

It is a package ``vllm`` with the parts that the engine asks for by name: a parser of arguments, a
platform, and an API server that speaks the documented surface (health, models, metrics, tokenize,
chats and completions, plain and streamed) and dies as it is told. ``install`` puts it into a folder
with an interpreter of its own.
"""

import stat
import sys
from pathlib import Path

VERSION = "9.8.7"
_CLI_ARGS = """
import json


def optional_type(convert):
    def parse(text):
        return None if text in ("", "None") else convert(text)
    return parse


def human_readable_int(text):
    return int(text.lower().replace("k", "000"))


def make_arg_parser(parser):
    import argparse
    parser.add_argument("--model", type=str)
    parser.add_argument("--host", type=optional_type(str))
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--api-key", nargs="*")
    parser.add_argument("--middleware", action="append", default=[])
    parser.add_argument("--max-num-seqs", type=optional_type(int))
    parser.add_argument("--max-model-len", type=optional_type(human_readable_int))
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.9)
    parser.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)
    parser.add_argument("--pipeline-parallel-size", type=int, default=1)
    parser.add_argument("--hf-overrides", type=json.loads)
    parser.add_argument("--override-generation-config", type=optional_type(json.loads))
    parser.add_argument("--collect-detailed-traces", nargs="+", choices=["model", "worker"])
    for name in ("enforce-eager", "disable-uvicorn-access-log", "trust-remote-code",
                 "enable-auto-tool-choice"):
        parser.add_argument("--" + name, action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--hf-token", type=str)
    # What only this one has: how it is to fail, and a file that it waits for in the middle of
    # loading.
    parser.add_argument("--hold", type=str)
    parser.add_argument("--die", choices=["memory", "value", "silent", "port-once"])
    return parser
"""
_FILES = {
    "vllm/__init__.py": "",
    "vllm/platforms.py": """
class current_platform:
    device_type = "cpu"
""",
    "vllm/utils/__init__.py": "",
    "vllm/utils/argparse_utils.py": """
from argparse import ArgumentParser as FlexibleArgumentParser
""",
    "vllm/entrypoints/__init__.py": "",
    "vllm/entrypoints/launchers/__init__.py": "",
    "vllm/entrypoints/launchers/cli_args.py": _CLI_ARGS,
    "vllm/entrypoints/openai/__init__.py": "",
    f"vllm-{VERSION}.dist-info/METADATA": f"Name: vllm\nVersion: {VERSION}\n",
}


def install(folder: Path) -> Path:
    """Makes the package in ``folder``, and gives the interpreter that has it."""
    server = Path(__file__).with_name("api_server.py").read_text()
    for name, text in (_FILES | {"vllm/entrypoints/openai/api_server.py": server}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    python = folder / "bin" / "python"
    python.parent.mkdir(exist_ok=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{folder}" exec {sys.executable} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return folder


def model(folder: Path) -> Path:
    """A folder that looks like a model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    return folder
