"""The stand-in's server; runs as ``python -m vllm.entrypoints.openai.api_server``.

It answers with the words of the last message. Some have a meaning of their own: "die" ends the
server, "slow ..." says a word every 50 ms, "who" tells its process and its arguments, "refuse" is
an error in vLLM's shape, "break" one in the middle of a stream.
"""

import asyncio
import importlib
import json
import multiprocessing
import os
import socket
import sys
import time

RUNNING = 0


def main():
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    args = make_arg_parser(FlexibleArgumentParser()).parse_args()
    print(
        "INFO 01-01 00:00:00 [api_server.py:1] key " + os.environ["VLLM_API_KEY"] + " sk-12345678"
    )
    if args.die:
        fail(args)
    load(args)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((args.host, args.port))
    # As vLLM has one: a process of its own that computes, and outlives a server that is killed.
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)).start()
    app = App(args)
    for name in args.middleware:
        module, _, attribute = name.rpartition(".")
        app = getattr(importlib.import_module(module), attribute)(app)
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, lifespan="off")
    uvicorn.Server(config).run(sockets=[sock])
    os._exit(0)


def load(args):
    """Says what vLLM does while it loads."""
    core = "(EngineCore_DP0 pid=7) INFO 01-01 00:00:00 "
    shards = "Loading safetensors checkpoint shards: {:3}% Completed | {}/2 [00:00<00:00]"
    print(core + "[gpu_model_runner.py:2602] Starting to load model x...", flush=True)
    print(shards.format(0, 0), shards.format(50, 1), sep="\n", flush=True)
    while args.hold and not os.path.exists(args.hold):
        time.sleep(0.02)
    print(shards.format(100, 2))
    print(core + "[default_loader.py:267] Loading weights took 0.01 seconds")
    print(core + "[backends.py:218] Compiling a graph for dynamic shape takes 0.01 s")
    for percent in (0, 60, 100):
        # As tqdm does: the next one over the last.
        print(f"\rCapturing CUDA graphs (decode, FULL): {percent:3}%|##  | 1/2", end="", flush=True)
        time.sleep(0.05)
    print("\n" + core + "[gpu_model_runner.py:3480] Graph capturing finished in 0 secs")
    print("INFO:     Started server process [7]", flush=True)


def fail(args):
    if args.die == "memory":
        print(
            "(EngineCore pid=7) ERROR 01-01 00:00:00 [core.py:9] Traceback (most recent call last):"
        )
        print(
            "(EngineCore pid=7) ERROR 01-01 00:00:00 [core.py:9] ValueError: No available memory "
            "for the cache blocks."
        )
        raise RuntimeError("Engine core initialization failed. See root cause above.")
    if args.die == "value":
        raise ValueError("the model is too odd, api_key=verysecret123")
    if args.die == "port-once":
        mark = args.model + "/tried"
        if not os.path.exists(mark):
            open(mark, "w").close()
            raise OSError(98, "Address already in use")
        return
    sys.exit(3)


class App:
    def __init__(self, args):
        self.args = args

    async def __call__(self, scope, receive, send):
        path = scope["path"]
        if path == "/health":
            await answer(send, 200, {})
        elif path == "/v1/models":
            names = self.args.served_model_name
            rows = [{"id": n, "max_model_len": self.args.max_model_len or 512} for n in names]
            await answer(send, 200, {"data": rows})
        elif path == "/metrics":
            await answer(send, 200, metrics(self.args).encode())
        else:
            body = b""
            more = True
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body")
            await self.ask(path, json.loads(body), send)

    async def ask(self, path, asked, send):
        global RUNNING
        if path == "/tokenize":
            text = asked.get("prompt") or " ".join(m["content"] for m in asked["messages"])
            await answer(send, 200, {"count": len(text.split()), "tokens": []})
        elif path == "/v1/embeddings":
            rows = [
                {"index": i, "embedding": [float(len(t))]} for i, t in enumerate(asked["input"])
            ]
            await answer(send, 200, {"data": rows[::-1], "usage": {"prompt_tokens": 3}})
        elif path in ("/v1/chat/completions", "/v1/completions"):
            RUNNING += 1
            try:
                await self.generate(path, asked, send)
            finally:
                RUNNING -= 1
        else:
            await answer(send, 404, {"detail": "Not Found"})

    async def generate(self, path, asked, send):
        chat = "messages" in asked
        text = asked["messages"][-1]["content"] if chat else asked["prompt"]
        if text == "die":
            os._exit(9)
        if text == "refuse":
            told = {
                "message": "temperature must be lower",
                "type": "BadRequestError",
                "param": "body.temperature",
                "code": 400,
            }
            await answer(send, 400, {"error": told})
            return
        if text == "who":
            text = json.dumps(
                {
                    "pid": os.getpid(),
                    "argv": sys.argv[1:],
                    "group": os.getpgrp(),
                    "environ": dict(os.environ),
                }
            )
        words = [text] if text.startswith("{") else text.split(" ")
        usage = {
            "prompt_tokens": 2,
            "completion_tokens": len(words),
            "total_tokens": len(words) + 2,
        }
        if not asked.get("stream"):
            choice = {"index": 0, "finish_reason": "stop"}
            choice |= (
                {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            )
            await answer(send, 200, {"model": asked["model"], "choices": [choice], "usage": usage})
            return
        await begin(send, 200, b"text/event-stream")
        for word in words:
            await asyncio.sleep(0.05 if words[0] == "slow" else 0)
            piece = {"delta": {"content": word + " "}} if chat else {"text": word + " "}
            await event(send, {"choices": [{"index": 0, "finish_reason": None} | piece]})
            if word == "break":
                told = {"message": "it broke", "type": "InternalServerError", "code": 500}
                await event(send, {"error": told})
                words = []
                break
        if words:
            last = {"index": 0, "finish_reason": "stop", "delta": {}, "text": ""}
            await event(send, {"choices": [last]})
            await event(send, {"choices": [], "usage": usage})
        await event(send, "[DONE]")
        await send({"type": "http.response.body", "body": b""})


def metrics(args):
    name = args.served_model_name[0]
    return f"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="{name}"}} {float(RUNNING)}
vllm:num_requests_running_total 99
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="{name}"}} 0.0
process_open_fds 7.0
"""


async def begin(send, status, kind, *more):
    headers = [(b"content-type", kind), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def answer(send, status, body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    await begin(send, status, b"application/json", (b"content-length", str(len(data)).encode()))
    await send({"type": "http.response.body", "body": data})


async def event(send, body):
    text = body if isinstance(body, str) else json.dumps(body)
    data = f"data: {text}\n\n".encode()
    await send({"type": "http.response.body", "body": data, "more_body": True})


if __name__ == "__main__":
    main()
