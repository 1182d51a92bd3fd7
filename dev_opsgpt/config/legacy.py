"""Keys of FastChat's and its descendants' configurations that have no effect here.

A configuration brought along must not break on them; each is dropped with a warning that says what
to use instead.
"""

from collections.abc import Mapping
from typing import Any

from dev_opsgpt.config.origin import Origin
from dev_opsgpt.config.problems import KeyPath, Problem, spell

_ENGINE_ARGS = 'For vLLM write it as "engine_args": {{"{key}": ...}}; else remove it'
_REMOVE = "Remove it"

_VLLM_KEYS = (
    "block_size disable_log_requests disable_log_stats download_dir dtype enforce_eager"
    " engine_use_ray gpu_memory_utilization kv_cache_dtype load_format max_log_len max_model_len"
    " max_num_batched_tokens max_num_seqs max_paddings max_parallel_loading_workers"
    " pipeline_parallel_size quantization quantization_param_path revision seed swap_space"
    " tensor_parallel_size tokenizer tokenizer_mode tokenizer_revision trust_remote_code"
    " worker_use_ray code_revision"
)

WORKER_KEYS: Mapping[str, str] = {
    **{key: _ENGINE_ARGS.format(key=key) for key in _VLLM_KEYS.split()},
    "worker_addr": 'Use "host" and "port", and "advertise_host" for other machines',
    "worker_address": 'Use "host" and "port", and "advertise_host" for other machines',
    "controller_addr": "Use FSCHAT_CONTROLLER",
    "controller_address": "Use FSCHAT_CONTROLLER",
    "numgpus": 'Use "num_gpus"',
    "model_path": 'Use "local_model_path" in llm_model_dict',
    "docker_port": _REMOVE,
    "infer_turbo": 'Use VLLM_MODEL_DICT, or "engine" in llm_model_dict',
    "embed_in_truncate": "Remove it; an input that is too long is answered with an error",
    "enable_xft": _REMOVE,
    "xft_config": _REMOVE,
    "xft_max_seq_len": 'Use "n_ctx"',
    "xft_dtype": _REMOVE,
    "enable_exllama": _REMOVE,
    "exllama": _REMOVE,
    "exllama_config": _REMOVE,
    "exllama_max_seq_len": 'Use "n_ctx"',
    "exllama_gpu_split": 'Use "gpus"',
    "exllama_cache_8bit": _REMOVE,
    "debug": _REMOVE,
    "ssl": "Put a reverse proxy with TLS before the gateway",
    "lora_path": _REMOVE,
    "multimodal": _REMOVE,
}

SERVER_KEYS: Mapping[str, str] = {"docker_port": _REMOVE}

_TOP_LEVEL_NAMES = (
    "API_SERVER ARTIFACT_DIR BING_SEARCH_URL BING_SUBSCRIPTION_KEY CACHED_MEMO_VS_NUM"
    " CACHED_VS_NUM CB_ROOT_PATH CHUNK_SIZE CODE_SEARCH_TOP_K CONTRAINER_NAME"
    " DEFAULT_KNOWLEDGE_BASE DEFAULT_VS_TYPE DOCKER_SERVICE DUCKDUCKGO_SEARCH_TOP_K"
    " EMBEDDING_DEVICE EMBEDDING_ENGINE EMBEDDING_MODEL FSCHAT_MULTI_MODEL_WORKERS"
    " HISTORY_LEN HTTPX_DEFAULT_TIMEOUT IMAGE_NAME JUPYTER_WORK_PATH KB_ROOT_PATH"
    " LANGCHAIN_LLM_MODEL LOG_FORMAT LOG_PATH LOG_VERBOSE MAX_TOKENS MODEL_PATH"
    " MODEL_ROOT_PATH NEBULA_GRAPH_SERVER NEBULA_HOST NEBULA_PASSWORD NEBULA_PATH"
    " NEBULA_PORT NEBULA_STORAGED_PORT NEBULA_USER NLTK_DATA_PATH NO_REMOTE_API"
    " NUM_HISTORY_LEN OPEN_CROSS_DOMAIN OVERLAP_SIZE PROMPT_TEMPLATE PROMPT_TEMPLATES"
    " RERANKER_MAX_LENGTH RERANKER_MODEL SANDBOX_CONTRAINER_NAME SANDBOX_DO_REMOTE"
    " SANDBOX_HOST SANDBOX_IMAGE_NAME SANDBOX_SERVER SCORE_THRESHOLD SDFILE_API_SERVER"
    " SEARCH_ENGINE_TOP_K SUPPORT_AGENT_MODEL SYSTEM_NAME TEMPERATURE TEXT_SPLITTER"
    " TOP_P USE_RERANKER VECTOR_SEARCH_TOP_K WEBUI_SERVER WEB_CRAWL_PATH ZH_TITLE_ENHANCE"
    " embedding_model_dict kbs_config"
)
TOP_LEVEL_KEYS: Mapping[str, str] = dict.fromkeys(_TOP_LEVEL_NAMES.split(), _REMOVE)


def sift_legacy(
    values: Mapping[str, Any], origin: Origin
) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """Give `values` without the legacy keys, and a warning for each of those."""
    notes: list[Problem] = []

    def sift(table: Any, path: KeyPath, known: Mapping[str, str]) -> Any:
        if not isinstance(table, Mapping):
            return table
        for key in table:
            if key in known:
                where = (*path, key)
                source = origin.source_of(where)
                message = "this key has no effect here"
                notes.append(Problem("warning", source, spell(where), message, known[key]))
        return {key: value for key, value in table.items() if key not in known}

    clean: dict[str, Any] = sift(values, (), TOP_LEVEL_KEYS)
    for section in ("FSCHAT_CONTROLLER", "FSCHAT_OPENAI_API"):
        if section in clean:
            clean[section] = sift(clean[section], (section,), SERVER_KEYS)
    workers = clean.get("FSCHAT_MODEL_WORKERS")
    if isinstance(workers, Mapping):
        clean["FSCHAT_MODEL_WORKERS"] = {
            name: sift(entry, ("FSCHAT_MODEL_WORKERS", name), WORKER_KEYS)
            for name, entry in workers.items()
        }
    return clean, tuple(notes)
