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
    # How the worker for a request is chosen; docs/dispatch.md tells the eight ways.
    "dispatch_method": "prefix_cache",
    # FastChat's own workers know no secret; name the addresses from which they may register.
    # "fastchat_workers": ["http://127.0.0.1:2100*"],
    # FastChat's own gateway and clients know none either.
    # "fastchat_clients": False,
}

# The gateway: the OpenAI API that clients use.
FSCHAT_OPENAI_API = {
    "host": DEFAULT_BIND_HOST,
    "port": 8888,
    # Keys without limits: in clear, or as "sha256:<hex digest>". Better: OPSGPT_API_KEYS. Keys with
    # limits are made while the service runs (opsgpt keys; docs/keys.md).
    # "api_keys": [],
    # Who may make keys, and see everybody's usage: the same forms. Better: OPSGPT_ADMIN_KEYS.
    # "admin_keys": [],
    # "gateway_workers": 1,  # processes on the port
    # How requests are routed: "default" for every model, and an entry for each that differs.
    # "routes": {
    #     "default": {"retries": 2, "request_timeout": 600},
    #     "tiny-chat": {"dispatch_method": "session_affinity", "first_token_timeout": 20},
    #     "example": {"fallbacks": ["tiny-chat"]},  # asked when nobody can serve this one
    #     # For a million tokens, in the unit of the keys' budgets.
    #     "vendor-large": {"input_price": 2.5, "cached_input_price": 1.25, "output_price": 10},
    # },
    # "retry_budget": 0.2,  # retries as a share of all requests
    # "breaker": {"failures": 5, "open_for": 5.0},  # when a worker that fails is left alone
    # "usage": True,  # a record of every request in the database (docs/usage.md)
    # "usage_days": 90,  # delete older ones; left out: never
    # "access_log": False,  # a log line for every request
    # "log_format": "text",  # or "json"
    # "otlp_endpoint": "http://127.0.0.1:4318",  # where traces go
    # "max_body_size": 33_554_432,  # bytes
    # "connect_timeout": 5.0,  # seconds
    # "read_timeout": 600.0,  # seconds that a worker may be silent
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
        # "load_on_demand": True,  # a request loads a model that LLM_MODELs does not start ...
        # "keep_alive": 300,  # ... which leaves after so many idle seconds; -1: never
        # "n_ctx": None,  # context length in tokens
        # "n_gpu_layers": -1,  # llama.cpp: layers on the GPU, -1 for all
        # "n_threads": None,
        # "default_params": {"temperature": 0.7},  # for requests that leave them out
        # "engine_args": {},  # handed to the engine as they are
        # "engine_env": {},  # environment variables of vLLM
        # "vllm_python": None,  # the Python, or the environment, that has vLLM
    },
    "example": {"port": 21001},
    # "codellama-34b-int4": {"host": DEFAULT_BIND_HOST, "port": 20057, "gptq_wbits": 4},
    # More names for one model:
    # "tiny-chat": {"model_names": ["tiny-chat", "small-talk"]},
    # A running OpenAI-compatible server (vLLM, Ollama, llama-server, ...) attached as a worker:
    # "qwen": {"openai_server": "http://10.0.0.5:8000/v1", "upstream_model": "Qwen/Qwen3-8B"},
}

# What this machine may have loaded at a time, replicas counted, and the memory of that; for one
# more model the one that was idle for the longest leaves (docs/models.md).
# MAX_LOADED_MODELS = 3
# MAX_LOADED_MEMORY = "12GiB"
# MAX_LOADED_GPU_MEMORY = "70GiB"

# Shared by the parts of the service. Left out, each start makes a new one, which is enough for one
# machine. Machines that work together need the same; OPSGPT_SECRET is the better place for it.
# CLUSTER_SECRET = ""

# Keys and usage: SQLite in DATA_DIR where left out. Better in OPSGPT_DATABASE_URL, as it may hold a
# password.
# DATABASE_URL = "postgresql+psycopg://opsgpt@10.0.0.5/opsgpt"
# Gateways on several machines count what keys use in one Redis; one machine needs none.
# REDIS_URL = "redis://10.0.0.5:6379/0"

# What the service keeps, and its log files; beside this folder, unless absolute.
DATA_DIR = "data"
LOG_DIR = "logs"

# Seconds that running requests get to finish when a server stops.
DRAIN_TIMEOUT = 30.0
