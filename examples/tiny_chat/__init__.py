"""How the embedded model `tiny-chat` is made: corpus, tokenizer, training, export.

corpus/        what the model reads: dialogues this project wrote, put together by templates
chat_format.py dialogue -> the text of one training example (the chat template)
tokenizer.py   byte-level BPE trained on that text
model.py       the Llama that is trained
train.py       the training loop
artefacts.py   the model folder that transformers and FastChat load
export_gguf.py that folder -> one GGUF file for llama.cpp

Only `model.py`, `train.py` and `artefacts.py` import torch.
"""
