"""llama.cpp's own HTTP server and nothing of ours in the way, loaded with the parameters that our
engine uses: ``python -m benchmarks.raw_llama GGUF PORT PARALLEL``."""

import signal
import sys
from pathlib import Path

import xllamacpp

from dev_opsgpt.engines.llama_cpp_gguf import Gguf
from dev_opsgpt.engines.llama_cpp_loading import LlamaOptions, generation_params


def serve(path: Path, port: int, parallel: int) -> None:
    """Serves until SIGTERM."""
    params = generation_params(Gguf(path), LlamaOptions(path=path, parallel=parallel))
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.ui = False
    params.verbosity = -1
    params.n_threads_http = 2 * parallel + 8
    server = xllamacpp.Server(params)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    del server


if __name__ == "__main__":
    # Blocked before the server makes its threads, so that none of them takes the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
