"""A projector of random weights for the model of ``random_model``: together a model that sees.

What it sees means nothing to it, but another image is another answer, and an image costs tokens:
``TOKENS`` for each (``mlp``), a square of patches.
"""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
from gguf import GGUFWriter
from PIL import Image

SIZE, PATCH, WIDTH, LAYERS, HEADS = 32, 8, 32, 2, 2
TOKENS = (SIZE // PATCH) ** 2
Color = tuple[int, int, int]
RED, BLUE = (255, 0, 0), (0, 0, 255)


def write_projector(path: Path, kind: str = "mlp", *, model_width: int = 64, seed: int = 1) -> Path:
    """Writes the projector to ``path``: a vision transformer, and after it LLaVA's two layers
    (``mlp``) or Gemma's pooling and one layer (``gemma3``, a quarter of the tokens)."""
    writer = GGUFWriter(str(path), "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", kind)
    writer.add_bool("clip.use_gelu", True)
    numbers = {
        "image_size": SIZE,
        "patch_size": PATCH,
        "embedding_length": WIDTH,
        "feed_forward_length": 2 * WIDTH,
        "projection_dim": model_width,
        "block_count": LAYERS,
        "attention.head_count": HEADS,
    }
    for name, number in numbers.items():
        writer.add_uint32(f"clip.vision.{name}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5] * 3)
    writer.add_array("clip.vision.image_std", [0.5] * 3)
    if kind == "gemma3":
        writer.add_uint32("clip.vision.projector.scale_factor", 2)
    _add_weights(writer, kind, model_width, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_weights(writer: GGUFWriter, kind: str, out: int, random: np.random.Generator) -> None:
    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, (random.standard_normal(shape) * 0.3).astype(np.float32))

    def layer(name: str, rows: int, columns: int) -> None:
        add(f"{name}.weight", rows, columns)
        add(f"{name}.bias", rows)

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(WIDTH, np.float32))

    add("v.patch_embd.weight", WIDTH, 3, PATCH, PATCH)
    add("v.patch_embd.bias", WIDTH)
    add("v.position_embd.weight", TOKENS, WIDTH)
    norm("v.post_ln")
    for number in range(LAYERS):
        block = f"v.blk.{number}"
        norm(f"{block}.ln1")
        norm(f"{block}.ln2")
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            layer(f"{block}.{part}", WIDTH, WIDTH)
        layer(f"{block}.ffn_up", 2 * WIDTH, WIDTH)
        layer(f"{block}.ffn_down", WIDTH, 2 * WIDTH)
    if kind == "gemma3":
        add("mm.input_projection.weight", WIDTH, out)
        writer.add_tensor("mm.soft_emb_norm.weight", np.ones(WIDTH, np.float32))
    else:
        layer("mm.0", out, WIDTH)
        layer("mm.2", out, out)


def picture(color: Color = RED, form: str = "PNG", size: tuple[int, int] = (16, 16)) -> bytes:
    """A file of one colour."""
    out = BytesIO()
    Image.new("RGB", size, color).save(out, form)
    return out.getvalue()


def url_of(data: bytes, kind: str = "image/png") -> str:
    """A file as a ``data:`` URL."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def image(source: Color | bytes | str = RED, **fields: str) -> dict[str, object]:
    """An image among the parts of a message: one of a colour, of a file, or by its URL."""
    data = source if isinstance(source, bytes | str) else picture(source)
    url = data if isinstance(data, str) else url_of(data)
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def text(words: str) -> dict[str, object]:
    return {"type": "text", "text": words}
