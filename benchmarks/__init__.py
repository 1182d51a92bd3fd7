"""Measures our data plane side by side with something real: `make bench`, docs/benchmarks.md."""
