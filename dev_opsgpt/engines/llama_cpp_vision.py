"""A GGUF model that sees: the llama.cpp engine with a projector, which makes of an image what the
model takes for tokens."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dev_opsgpt.engines.llama_cpp import LlamaCppEngine, LlamaOptions
from dev_opsgpt.engines.llama_cpp_chat import ChatPlanner
from dev_opsgpt.engines.llama_cpp_gguf import Gguf
from dev_opsgpt.engines.llama_cpp_images import ImageReader
from dev_opsgpt.engines.llama_cpp_memory import check_memory
from dev_opsgpt.engines.llama_cpp_server import LlamaServer
from dev_opsgpt.protocol.openai import ChatRequest
from dev_opsgpt.worker.engine import EngineError
from dev_opsgpt.worker.images import ImageRules

# Tokens read in one go: an image should fit, and for projectors of Gemma it must, whose tokens of
# an image look at each other in both directions.
BATCH, GEMMA_BATCH = 512, 2048


class LlamaCppVisionEngine(LlamaCppEngine):
    """A GGUF model and the ``projector`` file (mmproj) that goes with it.

    ``rules`` is what is allowed of the images of a request. To be subclassed as
    ``LlamaCppEngine`` is.
    """

    sees = True

    def __init__(
        self,
        options: LlamaOptions,
        projector: Path,
        *,
        rules: ImageRules | None = None,
        default_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(options, default_params=default_params)
        self._projector = projector
        self._images = ImageReader(rules or ImageRules())

    def loading_params(self, model: Gguf) -> Any:
        """Those of the model, and the projector's. Raises ``EngineError``."""
        projector = read_projector(self._projector)
        params = super().loading_params(model)
        kind = str(projector.metadata.get("clip.projector_type") or "")
        kind = kind or str(projector.metadata.get("clip.vision.projector_type") or "")
        params.n_batch = params.n_ubatch = GEMMA_BATCH if kind.startswith("gemma") else BATCH
        check_memory(model, params.n_ctx, gpu_layers=params.n_gpu_layers, more=projector.size)
        params.mmproj.path = str(self._projector)
        params.mmproj_use_gpu = params.n_gpu_layers != 0
        # llama.cpp would have ffmpeg look at what it takes for a film. There is none in here.
        params.video_ffmpeg_bin_dir = os.devnull
        return params

    async def planner(self, server: LlamaServer, props: Mapping[str, Any]) -> ChatPlanner:
        """The planner of a model that sees. Raises ``EngineError`` where the projector gives no
        images to the model, or its chat template no place to them."""
        if not props.get("modalities", {}).get("vision"):
            raise EngineError(f"The projector {self._projector} is not for images.")
        template, marker = props.get("chat_template") or "", props["media_marker"]
        planner = ChatPlanner(server, template, images=self._images, marker=marker)
        if marker not in await planner.prompt(_probe(), [""]):
            raise EngineError(f"The chat template of {self._options.path} leaves images out.")
        return planner


def read_projector(path: Path) -> Gguf:
    """The projector's metadata. Raises ``EngineError`` for a file that is no projector of
    images."""
    projector = Gguf(path, "projector")
    if projector.architecture != "clip":
        raise EngineError(
            f"The projector file {path} is no projector (its architecture is "
            f"{projector.architecture or 'unknown'}, not clip)."
        )
    if not projector.metadata.get("clip.has_vision_encoder"):
        raise EngineError(f"The projector {path} is not for images.")
    return projector


def _probe() -> ChatRequest:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    messages = [{"role": "user", "content": [part]}]
    return ChatRequest.model_validate({"model": "probe", "messages": messages})
