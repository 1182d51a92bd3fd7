from dev_opsgpt.engines.vllm.figures import labelled, load_of

PAGE = b"""# HELP vllm:num_requests_running Number of requests.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a}b"} 3.0
vllm:num_requests_running{engine="1",model_name="a}b"} 2.0
vllm:num_requests_running_total 99
vllm:num_requests_waiting{engine="0"} 4.0 1795790268
vllm:request_success_total{engine="0",finished_reason="stop"} 6.0
vllm:request_success_total{engine="0",finished_reason="abort"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
process_open_fds 7.0
odd{model="x",le="+Inf"} 1
"""


def test_load_is_that_of_all_engines() -> None:
    assert load_of(PAGE) == (5, 4, 16)
    assert load_of(b"") == (0, 0, 0)


def test_labels_are_added() -> None:
    lines = labelled(PAGE, {"model": 'm"', "worker": "http://h:1"}).decode().splitlines()
    ours = 'model="m\\"",worker="http://h:1"'
    assert lines[:2] == PAGE.decode().splitlines()[:2]
    assert lines[2] == f'vllm:num_requests_running{{{ours},engine="0",model_name="a}}b"}} 3.0'
    assert lines[5].endswith(" 4.0 1795790268")
    assert lines[9] == f"process_open_fds{{{ours}}} 7.0"
    assert lines[10] == f'odd{{{ours},exported_model="x",le="+Inf"}} 1'
