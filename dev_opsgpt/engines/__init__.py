"""One file an engine: what runs a local model inside a worker."""
