"""Which models are served. Edit this file; `opsgpt config check` tells what is wrong with it.

Plain values only: nothing here loads a model or touches the disk. Every key, its type and its
default: docs/configuration.md. What should not stand in a file under version control (API keys, for
one) can go to configs/local_config.json or to the environment instead; both go before this file.
"""

# The model that is named first, and the models to start. A name is what clients send as "model".
LLM_MODEL = "tiny-chat"
LLM_MODELs = ["tiny-chat", "example"]

# Where local models run: "auto" (a GPU where there is one), "cpu", "cuda", "mps", "npu", "xpu".
LLM_DEVICE = "auto"

# Local models: name -> where it lies. A path is looked for under llm_models/ first, then as it
# stands ("~" works), and is else taken for a name on the Hugging Face hub.
llm_model_dict = {
    # A small model made by this project; it comes with the repository and runs on any machine.
    "tiny-chat": {
        "local_model_path": "tiny-chat.gguf",
        # For clients: where they reach the model, and with which key.
        "api_base_url": "http://localhost:8888/v1",
        "api_key": "EMPTY",
        # For requests that do not say: so small a model answers best with little left to chance.
        "default_params": {"temperature": 0.2},
    },
    # A folder in Hugging Face format, here llm_models/THUDM/chatglm-6b:
    # "chatglm-6b": {
    #     "local_model_path": "THUDM/chatglm-6b",
    #     "api_base_url": "http://localhost:8888/v1",
    #     "api_key": "EMPTY",
    # },
}

# Local models that vLLM serves (on a machine with vLLM installed): name -> path or hub name.
# A name that is in llm_model_dict as well is served by vLLM.
VLLM_MODEL_DICT: dict[str, str] = {
    # "chatglm2-6b": "THUDM/chatglm2-6b",
}

# Models behind online APIs. "provider" is a class of dev_opsgpt/service/model_workers/; an entry
# that has one is started. Keys that only one provider knows may stand here as well.
ONLINE_LLM_MODEL = {
    # OpenAI itself. Started when LLM_MODELs names it.
    "openai-api": {
        "model_name": "gpt-3.5-turbo",
        "api_base_url": "https://api.openai.com/v1",
        "api_key": "",
        "openai_proxy": "",
    },
    # The pattern for a provider of your own (docs/adding-a-provider.md). It asks this server's own
    # tiny-chat, so that it answers without any key.
    "example": {
        "version": "tiny-chat",
        "api_base_url": "http://127.0.0.1:8888/v1",
        "api_key": "EMPTY",
        "provider": "ExampleWorker",
    },
}

# Whether local models are started at all. Where LLM_MODEL is an online model such as
# "gpt-3.5-turbo-16k", only online models are served, so a local model's name must not contain
# "gpt".
USE_FASTCHAT = "gpt" not in LLM_MODEL
