"""The vLLM engine with the real vLLM: ``make test-vllm``."""
