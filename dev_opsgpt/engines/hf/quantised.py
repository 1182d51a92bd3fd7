"""Which packed format a checkpoint has, by its own configuration and ours. Pure, no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dev_opsgpt.engines.hf.options import GptqOptions
from dev_opsgpt.worker.engine import EngineError

# Layouts of GPTQ by the offset of a stored zero point.
_ZERO_OFFSETS = {"gptq": 1, "gptq_v2": 0}
_BITS = {"gptq": (2, 3, 4, 8), "awq": (4,)}


@dataclass(frozen=True)
class PackedFormat:
    """How weights are packed; see ``gptq.py``. ``group_size`` -1 is one group. ``varies`` says that
    some layers have another number of bits or another group size."""

    method: Literal["gptq", "awq"]
    bits: int
    group_size: int
    zero_offset: int
    varies: bool = False


def packed_format(said: Mapping[str, Any] | None, asked: GptqOptions | None) -> PackedFormat | None:
    """The format of a checkpoint, None where its weights are not packed as GPTQ or AWQ.

    ``said`` is the checkpoint's own description (``quantization_config`` of its ``config.json``, or
    ``quantize_config.json``), ``asked`` what our configuration says. Raises ``EngineError`` where
    they contradict each other, and for a layout that is not read here.
    """
    if said is not None:
        method = str(said.get("quant_method", "gptq")).lower()
        if method not in _BITS:
            if asked is not None:
                raise EngineError(
                    f"The checkpoint is quantised by {method}; take gptq_wbits and awq_wbits off."
                )
            return None
        return _described(method, said, asked)
    if asked is None:
        return None
    method, bits = ("awq" if asked.awq else "gptq"), asked.bits or 4
    return _format(method, bits, asked.group_size, 0 if asked.awq else 1)


def _described(
    method: str, said: Mapping[str, Any], asked: GptqOptions | None
) -> PackedFormat | None:
    bits = said.get("bits", said.get("w_bit"))
    size = said.get("group_size", said.get("q_group_size", -1))
    if not isinstance(bits, int) or not isinstance(size, int):
        raise EngineError(
            f"The checkpoint's {method} configuration does not say bits and group_size as numbers."
        )
    _agree("bits", bits, None if asked is None else asked.bits, "wbits", method)
    wanted = None if asked is None or asked.group_size == -1 else asked.group_size
    _agree("group_size", size, wanted, "groupsize", method)
    if asked is not None and asked.awq != (method == "awq"):
        raise EngineError(f"The checkpoint is {method}; set {method}_wbits, not the other's.")
    if method == "gptq" and asked is not None and asked.act_order and said.get("desc_act") is False:
        raise EngineError(
            "gptq_act_order is set, and the checkpoint says that it was made without (desc_act)."
        )
    key = "version" if method == "awq" else "checkpoint_format"
    layout = str(said.get(key) or ("gemm" if method == "awq" else "gptq")).lower()
    if said.get("is_marlin_format"):
        layout = "marlin"
    known = ("gemm",) if method == "awq" else tuple(_ZERO_OFFSETS)
    if layout not in known:
        raise EngineError(
            f"The checkpoint is in the {layout} layout of {method}, which is not read here; "
            f"convert it to {' or '.join(known)}."
        )
    if said.get("pack_dtype", "int32") != "int32":
        raise EngineError("The checkpoint is packed in words other than int32, which is not read.")
    offset = 0 if method == "awq" else _ZERO_OFFSETS[layout]
    return _format(method, bits, size, offset, varies=bool(said.get("dynamic")))


def _format(
    method: str, bits: int, group_size: int, zero_offset: int, *, varies: bool = False
) -> PackedFormat:
    if bits not in _BITS[method]:
        known = ", ".join(map(str, _BITS[method]))
        raise EngineError(f"{bits} bits are not read for {method}; it can be {known}.")
    name: Literal["gptq", "awq"] = "awq" if method == "awq" else "gptq"
    return PackedFormat(name, bits, group_size if group_size > 0 else -1, zero_offset, varies)


def _agree(what: str, said: int, asked: int | None, key: str, method: str) -> None:
    if asked is not None and asked != said:
        raise EngineError(
            f"{method}_{key} is {asked}, and the checkpoint says {what} {said}; take it off."
        )
