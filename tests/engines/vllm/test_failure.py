"""The reason out of what vLLM writes; the lines are vLLM 0.32's own, shortened."""

import pytest

from dev_opsgpt.engines.vllm.failure import PORT_TAKEN, reason_of

API = "(APIServer pid=7) "
CORE = "(EngineCore pid=8) ERROR 11-27 15:10:11 [core.py:1170] "


@pytest.mark.parametrize(
    ("lines", "code", "reason"),
    [
        (
            ["api_server.py: error: argument --dtype: invalid choice: 'int3' (choose from 'auto')"],
            2,
            "argument --dtype: invalid choice: 'int3' (choose from 'auto')",
        ),
        (
            [
                f"{API}Traceback (most recent call last):",
                f'{API}  File "/x/api_server.py", line 1, in <module>',
                f"{API}pydantic_core._pydantic_core.ValidationError: "
                "1 validation error for ModelConfig",
                f"{API}  Value error, User-specified max_model_len (9) is greater than 4096.",
                f"{API}    For further information visit https://errors.pydantic.dev/2.14/v/value",
            ],
            1,
            "User-specified max_model_len (9) is greater than 4096.",
        ),
        (
            [
                f"{CORE}EngineCore failed to start.",
                f"{CORE}Traceback (most recent call last):",
                f"{CORE}safetensors_rust.SafetensorError: Error while deserializing header",
                f"{API}RuntimeError: Engine core initialization failed. See root cause above.",
            ],
            1,
            "SafetensorError: Error while deserializing header",
        ),
        (
            [
                f"{CORE}ValueError: Available memory on node 0 (20.0/23.0 GiB) on kv cache "
                "allocation is less than requested memory for kv (99999.0 GiB).",
                f"{API}RuntimeError: Engine core initialization failed. See root cause above.",
            ],
            1,
            "out of memory: Available memory on node 0 (20.0/23.0 GiB) on kv cache allocation is "
            "less than requested memory for kv (99999.0 GiB).",
        ),
        (
            ["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."],
            1,
            "out of memory: CUDA out of memory. Tried to allocate 2.00 GiB.",
        ),
        (["OSError: [Errno 98] Address already in use"], 1, PORT_TAKEN),
        (["ValueError: bad api_key=abcdefgh"], 1, "bad api_key=***"),
        (["KeyError"], 1, "KeyError"),
        (["RuntimeError: Engine core initialization failed."], 1, None),
        (["INFO 11-27 15:10:11 [x.py:1] loading"], 137, "it was killed (kill -9, or"),
        (["INFO 11-27 15:10:11 [x.py:1] loading"], 139, "it crashed"),
        (["INFO 11-27 15:10:11 [x.py:1] loading"], 143, "it was ended by signal 15"),
        (
            ["INFO 11-27 15:10:11 [x.py:1] loading"],
            3,
            "it ended with code 3; its last words: loading",
        ),
        ([], 0, "it ended with code 0; its last words: none"),
    ],
)
def test_one_line(lines: list[str], code: int, reason: str | None) -> None:
    found = reason_of(lines, code)
    expected = "Engine core initialization failed." if reason is None else reason
    assert found.startswith(f"vLLM: {expected}")
    assert "\n" not in found


def test_a_long_one_is_cut() -> None:
    assert len(reason_of(["ValueError: " + "x" * 9999], 1)) < 500
