"""The vLLM engine: vLLM in processes of its own, and what watches over it.

The parts, in the order in which a start meets them: ``python`` (which interpreter has vLLM, and
what arguments it takes), ``arguments`` (the user's, checked), ``command`` (what is run), ``server``
(one life of vLLM, held by ``guardian``), ``failure`` (why it ended), ``keeper`` (one life after
another), ``figures`` (its load and metrics), ``engine`` and ``upstream`` (the worker's surfaces).
``inside`` is what vLLM's own interpreter is handed; ``door`` and ``refusals`` run there, before
vLLM's routes.
"""
