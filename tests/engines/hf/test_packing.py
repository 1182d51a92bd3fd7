import copy

import torch

from dev_opsgpt.engines.hf.packing import PackedLinears, _supported

from . import attentions as tiny


def test_packed_layers_say_the_same_and_come_back_to_the_bit() -> None:
    model = copy.deepcopy(tiny.llama()).to(torch.bfloat16)
    model.lm_head.weight = model.model.embed_tokens.weight  # as models tie them
    before = copy.deepcopy(model.state_dict())
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        expected = model(ids).logits
        packed = PackedLinears(model)
        assert len(packed) == (2 * 7 + 1 if _supported() else 0)
        torch.testing.assert_close(model(ids).logits, expected, rtol=0.05, atol=0.05)
        packed.unpack()
        torch.testing.assert_close(model(ids).logits, expected, rtol=0, atol=0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_what_is_no_plain_layer_of_bfloat16_stays() -> None:
    class Own(torch.nn.Linear):
        pass

    hooked = torch.nn.Linear(4, 4).to(torch.bfloat16)
    hooked.register_forward_hook(lambda *given: None)
    layers = torch.nn.ModuleList([torch.nn.Linear(4, 4), Own(4, 4).to(torch.bfloat16), hooked])
    assert len(PackedLinears(layers)) == 0
