"""The configuration: read, validated, explained. Imports nothing else of this package.

`load_settings()` gives a `Settings` or raises `ConfigError`; `check_settings(settings)` tells what
is doubtful or cannot work.
"""

from dev_opsgpt.config.check import DISPATCH_METHODS, check_settings
from dev_opsgpt.config.export import json_schema, masked_dump
from dev_opsgpt.config.models import LocalModel, OnlineModel, WorkerSettings
from dev_opsgpt.config.paths import base_url, is_loopback, resolve_model_path
from dev_opsgpt.config.plan import ModelPlan
from dev_opsgpt.config.problems import ConfigError, Problem
from dev_opsgpt.config.servers import ControllerSettings, GatewaySettings
from dev_opsgpt.config.settings import Settings, load_settings

__all__ = [
    "DISPATCH_METHODS",
    "ConfigError",
    "ControllerSettings",
    "GatewaySettings",
    "LocalModel",
    "ModelPlan",
    "OnlineModel",
    "Problem",
    "Settings",
    "WorkerSettings",
    "base_url",
    "check_settings",
    "is_loopback",
    "json_schema",
    "load_settings",
    "masked_dump",
    "resolve_model_path",
]
