"""HTTP/1.1 between our processes: a lean client, and uvicorn as an object."""
