"""Children of the flow model begin as the model itself, and are asked as its pipeline asks."""

import torch

from training import flow_children
from training.zoo import lora

TEXTS = ["picture of owl, orange", ""]


def test_answers_are_the_pipelines_also_with_an_untrained_lora():
    pipe, network = flow_children._pipe(), flow_children.network().eval()
    x, level = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.6, 0.6])
    states, pooled = flow_children.encoded(TEXTS)
    with torch.inference_mode():
        text, _, summary, _ = pipe.encode_prompt(TEXTS, None, None, do_classifier_free_guidance=False)
        wanted = pipe.transformer(x, text, summary, 1000 * level, return_dict=False)[0]
        torch.testing.assert_close(
            flow_children.velocity(network, x, level, states, pooled), wanted, atol=1e-4, rtol=1e-4
        )
        assert lora.add(network)
        torch.testing.assert_close(
            flow_children.velocity(network, x, level, states, pooled), wanted, atol=1e-4, rtol=1e-4
        )
