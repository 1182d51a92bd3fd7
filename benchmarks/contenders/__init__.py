"""Everything that can be measured, by name, in the order of the tables."""

from types import MappingProxyType

from benchmarks.contender import Factory
from benchmarks.contenders.direct import Direct
from benchmarks.contenders.fastchat import FastChat
from benchmarks.contenders.litellm import LiteLLM
from benchmarks.contenders.nginx import Nginx
from benchmarks.contenders.opsgpt import Attached, Everything, Keyed, TwoProcesses
from benchmarks.contenders.sglang_router import SglangRouter
from benchmarks.contenders.smg import Smg
from benchmarks.contenders.vllm_router import VllmRouter

CONTENDERS: MappingProxyType[str, Factory] = MappingProxyType(
    {
        "direct": Direct,
        "nginx": Nginx,
        "attached": Attached,
        "keyed": Keyed,
        "everything": Everything,
        "everything-2": TwoProcesses,
        "vllm-router": VllmRouter,
        "sglang-router": SglangRouter,
        "smg": Smg,
        "litellm": LiteLLM,
        "fastchat": FastChat,
    }
)
DIRECT = "direct"
"""Without a router: what the added time is measured against."""
NGINX = "nginx"
RUST = frozenset({"vllm-router", "sglang-router", "smg"})
LITELLM = "litellm"
OURS = "everything"
"""The one of ours that the targets are for."""
