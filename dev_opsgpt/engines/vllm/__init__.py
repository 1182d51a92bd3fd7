"""The vLLM engine: vLLM in processes of its own, and what watches over it.

The parts, in the order in which a start meets them: ``python`` (which interpreter has vLLM, and
what arguments it takes), ``arguments`` (the user's, checked), ``command`` (what is run), ``server``
(one life of vLLM, held by ``guardian``), ``failure`` (why it ended), ``figures`` (its metrics),
``engine`` (the lives one after the other, and the worker's surfaces). ``inside`` is what runs in
vLLM's own interpreter.
"""
