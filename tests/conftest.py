"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# How long an example takes, to be made or to run, says as much of the machine as of the code.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")
