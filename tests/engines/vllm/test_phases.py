"""How far a start has come, by the lines of vLLM 0.11 and 0.32 on GPU and CPU."""

import pytest

from dev_opsgpt.engines.vllm.phases import ASKING, STARTING, Phase, phase_of
from dev_opsgpt.worker.progress import Progressing

from .conftest import Make

CORE = "(EngineCore_DP0 pid=164) INFO 01-23 15:48:47 "


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        ("[gpu_model_runner.py:2602] Starting to load model /m...", ("loading the weights", None)),
        (
            "Loading safetensors checkpoint shards:  20% Completed | 1/5 [00:00<00:00,  4.21it/s]",
            ("loading the weights", 0.2),
        ),
        ("Loading pt checkpoint shards: 100% Completed | 1/1 [0]", ("loading the weights", 1.0)),
        ("[default_loader.py:267] Loading weights took 19.62 seconds", ("warming up", None)),
        ("[m.py:1] Model loading took 3.88 GiB and 20.44 seconds", ("warming up", None)),
        (
            "[backends.py:548] Using cache directory: /c/backbone for vLLM's torch.compile",
            ("compiling", None),
        ),
        ("[backends.py:559] Dynamo bytecode transform time: 3.29 s", ("compiling", None)),
        ("[monitor.py:34] torch.compile takes 13.29 s in total", ("warming up", None)),
        ("[cpu_model_runner.py:150] Warming up model for the compilation...", ("warming up", None)),
        ("[gpu_worker.py:298] Available KV cache memory: 102.56 GiB", ("making the cache", None)),
        (
            "Capturing CUDA graphs (decode, FULL):  57%|█████     | 20/35 [00:03<00:02]",
            ("capturing graphs", 0.57),
        ),
        ("[api_server.py:1915] Starting vLLM API server 0 on ...", ("starting the server", None)),
        ("[launcher.py:42] Route: /load, Methods: GET", None),
        ("Uvicorn running on http://127.0.0.1:8000", None),
        ("", None),
    ],
)
def test_lines(line: str, phase: tuple[str, float | None] | None) -> None:
    expected = None if phase is None else Phase(*phase)
    assert phase_of(line) == expected
    if line.startswith("["):
        assert phase_of(CORE + line) == expected


async def test_an_engine_tells_how_its_start_goes_on(make: Make) -> None:
    engine = make()
    assert isinstance(engine, Progressing)
    told: list[tuple[str, float | None]] = []
    engine.progress = lambda *news: told.append(news)
    await engine.start()
    doing = list(dict.fromkeys(what for what, _ in told))
    assert doing == [
        ASKING,
        STARTING,
        "loading the weights",
        "warming up",
        "compiling",
        "capturing graphs",
        "starting the server",
    ]
    assert [f for what, f in told if what == "loading the weights"] == [None, 0.0, 0.5, 1.0]
    assert ("capturing graphs", 0.6) in told, "before its line has ended"
    assert told[-1] == ("starting the server", None)
