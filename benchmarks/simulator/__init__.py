"""Simulates fleets of replicas under the real dispatch policies: `python -m benchmarks.simulator`,
docs/dispatch.md."""
