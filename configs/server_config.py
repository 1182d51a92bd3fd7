"""Where the parts of the service listen, and how each model's worker runs. Edit this file.

Plain values only. Every key, its type and its default: docs/configuration.md.
"""

from configs.model_config import LLM_DEVICE

# The address that everything binds to. "0.0.0.0" opens a server to other machines; the gateway then
# needs client keys (OPSGPT_API_KEYS), the controller a secret (OPSGPT_SECRET).
DEFAULT_BIND_HOST = "127.0.0.1"

# The controller: who is alive, and who gets the next request.
FSCHAT_CONTROLLER = {
    "host": DEFAULT_BIND_HOST,
    "port": 20001,
    # "least_load", "round_robin", "lottery" or "shortest_queue".
    "dispatch_method": "least_load",
    # FastChat's own workers know no secret; name the addresses from which they may register.
    # "fastchat_workers": ["http://127.0.0.1:2100*"],
    # FastChat's own gateway and clients know none either.
    # "fastchat_clients": False,
}

# The gateway: the OpenAI API that clients use.
FSCHAT_OPENAI_API = {
    "host": DEFAULT_BIND_HOST,
    "port": 8888,
    # Keys that clients may use: in clear, or as "sha256:<hex digest>". Better: OPSGPT_API_KEYS.
    # "api_keys": [],
    # An OpenAI-compatible server for every model that is not declared here.
    # "llm_base_url": "https://api.openai.com/v1",
}

# How workers run: "default" for all of them, and an entry for each model that differs.
# FSCHAT_MODEL_WORKERS[name] goes before ONLINE_LLM_MODEL[name], that before "default".
FSCHAT_MODEL_WORKERS = {
    "default": {
        "host": DEFAULT_BIND_HOST,
        # The first worker's port; a model without a port of its own gets the next free number.
        "port": 20002,
        "device": LLM_DEVICE,
        # "gpus": None,  # which GPUs, as in "0,1"
        # "num_gpus": 1,
        # "max_gpu_memory": "20GiB",  # on each GPU
        # "load_8bit": False,
        # "gptq_ckpt": None,
        # "gptq_wbits": 16,  # 4 for an int4 checkpoint
        # "gptq_groupsize": -1,
        # "gptq_act_order": False,
        # "awq_ckpt": None,
        # "awq_wbits": 16,
        # "awq_groupsize": -1,
        # "conv_template": None,
        # "limit_worker_concurrency": 5,  # requests at the same time
        # "queue_size": 64,  # requests that may wait beyond those
        # "queue_timeout": 60.0,  # seconds they may wait
        # "stream_interval": 2,
        # "no_register": False,
        # "replicas": 1,  # workers for each model
        # "n_ctx": None,  # context length in tokens
        # "n_gpu_layers": -1,  # llama.cpp: layers on the GPU, -1 for all
        # "n_threads": None,
        # "default_params": {"temperature": 0.7},  # for requests that leave them out
        # "engine_args": {},  # handed to the engine as they are
    },
    "example": {"port": 21001},
    # "codellama-34b-int4": {"host": DEFAULT_BIND_HOST, "port": 20057, "gptq_wbits": 4},
    # More names for one model:
    # "tiny-chat": {"model_names": ["tiny-chat", "small-talk"]},
    # A running OpenAI-compatible server (vLLM, Ollama, llama-server, ...) attached as a worker:
    # "qwen": {"openai_server": "http://10.0.0.5:8000/v1", "upstream_model": "Qwen/Qwen3-8B"},
}

# Shared by the parts of the service. Left out, each start makes a new one, which is enough for one
# machine. Machines that work together need the same; OPSGPT_SECRET is the better place for it.
# CLUSTER_SECRET = ""

LOG_DIR = "logs"

# Seconds that running requests get to finish when a server stops.
DRAIN_TIMEOUT = 30.0
