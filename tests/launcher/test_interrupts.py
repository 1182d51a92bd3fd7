import signal
import subprocess
import sys

import pytest

from dev_opsgpt.launcher.interrupts import plain_interrupts

IMPORTING = """
import time
from dev_opsgpt.launcher.interrupts import plain_interrupts
with plain_interrupts():
    print("importing", flush=True)
    time.sleep(60)
"""


def test_ctrl_c_ends_an_import_without_a_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", IMPORTING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
    assert (process.returncode, told) == (-signal.SIGINT, "")


@pytest.mark.parametrize("before", [signal.SIG_IGN, signal.default_int_handler])
def test_what_was_set_before_is_set_again(before: signal.Handlers) -> None:
    found = signal.signal(signal.SIGINT, before)
    try:
        with plain_interrupts():
            within = signal.getsignal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is before
        assert within is (signal.SIG_IGN if before is signal.SIG_IGN else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGINT, found)
