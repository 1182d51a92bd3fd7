from typing import Any

import pytest

from dev_opsgpt.engines.hf.options import GptqOptions
from dev_opsgpt.engines.hf.quantised import PackedFormat, packed_format
from dev_opsgpt.worker.engine import EngineError

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "GEMM"}


def test_what_the_checkpoint_says() -> None:
    assert packed_format(GPTQ, None) == PackedFormat("gptq", 4, 128, 1)
    second = GPTQ | {"checkpoint_format": "gptq_v2", "group_size": -1}
    assert packed_format(second, None) == PackedFormat("gptq", 4, -1, 0)
    assert packed_format(AWQ, None) == PackedFormat("awq", 4, 64, 0)
    mixed = packed_format(GPTQ | {"dynamic": {"+:.*down.*": {"bits": 8}}}, None)
    assert mixed == PackedFormat("gptq", 4, 128, 1, varies=True)
    assert packed_format(None, None) is None
    assert packed_format({"quant_method": "fp8"}, None) is None


def test_what_the_configuration_says() -> None:
    assert packed_format(None, GptqOptions(4, group_size=32)) == PackedFormat("gptq", 4, 32, 1)
    assert packed_format(None, GptqOptions(None, "x.pt")) == PackedFormat("gptq", 4, -1, 1)
    assert packed_format(None, GptqOptions(4, awq=True)) == PackedFormat("awq", 4, -1, 0)
    assert packed_format(GPTQ, GptqOptions(4, group_size=128)) == packed_format(GPTQ, None)


@pytest.mark.parametrize(
    ("said", "asked", "message"),
    [
        (GPTQ, GptqOptions(8), "gptq_wbits is 8, and the checkpoint says bits 4"),
        (GPTQ, GptqOptions(4, group_size=32), "gptq_groupsize is 32, and .* says group_size 128"),
        (GPTQ, GptqOptions(4, act_order=True), "gptq_act_order is set"),
        (GPTQ, GptqOptions(4, awq=True), "The checkpoint is gptq"),
        (AWQ, GptqOptions(4), "The checkpoint is awq"),
        (GPTQ | {"checkpoint_format": "marlin"}, None, "the marlin layout of gptq"),
        (GPTQ | {"is_marlin_format": True}, None, "the marlin layout of gptq"),
        (AWQ | {"version": "gemv"}, None, "the gemv layout of awq, .* convert it to gemm"),
        (GPTQ | {"bits": 5}, None, "5 bits are not read for gptq; it can be 2, 3, 4, 8"),
        (AWQ | {"bits": 8}, None, "8 bits are not read for awq"),
        (GPTQ | {"pack_dtype": "int16"}, None, "words other than int32"),
        (GPTQ | {"bits": "four"}, None, "does not say bits and group_size as numbers"),
        ({"quant_method": "fp8"}, GptqOptions(4), "quantised by fp8"),
    ],
)
def test_what_is_refused(said: dict[str, Any], asked: GptqOptions | None, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        packed_format(said, asked)
