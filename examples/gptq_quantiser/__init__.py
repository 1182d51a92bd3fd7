"""GPTQ quantisation of a transformers model, by the method of Frantar et al., "GPTQ: Accurate
Post-Training Quantization for Generative Pre-trained Transformers" (arXiv:2210.17323).

solver.py      one weight: which integers, which scales
blocks.py      a model, decoder block by decoder block, over calibration text
packing.py     integers into the tensors of a checkpoint
checkpoint.py  the folder that is written
"""

from gptq_quantiser.blocks import quantise_model
from gptq_quantiser.checkpoint import write_checkpoint
from gptq_quantiser.solver import Recipe

__all__ = ["Recipe", "quantise_model", "write_checkpoint"]
