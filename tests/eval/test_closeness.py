import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from eval.scoring.closeness import Text, closeness, log_probs, perplexity, targets


def logs(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows).log()


def test_divergences_by_hand() -> None:
    merge, source = logs((0.5, 0.5), (0.5, 0.5)), logs((0.5, 0.5), (0.25, 0.75))
    found = closeness(merge, source)
    far = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)  # KL of (1/2, 1/2) from (1/4, 3/4)
    back = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert found.forward == pytest.approx(far / 2, rel=1e-5)  # the median of 0 and it
    assert found.forward_p95 == pytest.approx(0.95 * far, rel=1e-5)
    assert found.backward == pytest.approx(back / 2, rel=1e-5)
    assert found.tokens == 2


def test_the_same_model_is_no_way_off() -> None:
    same = torch.randn(50, 30, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    found = closeness(same, same)
    assert (found.forward, found.backward, found.agreement) == (
        pytest.approx(0, abs=1e-6),
        pytest.approx(0, abs=1e-6),
        1.0,
    )


def test_agreement_counts_the_likeliest_token() -> None:
    merge = logs((0.6, 0.4), (0.6, 0.4), (0.1, 0.9), (0.2, 0.8))
    source = logs((0.9, 0.1), (0.4, 0.6), (0.2, 0.8), (0.6, 0.4))
    assert closeness(merge, source).agreement == 0.5


def test_a_longer_vocabulary_is_cut_and_made_whole_again() -> None:
    merge, source = logs((0.4, 0.4, 0.2)), logs((0.5, 0.5))
    assert closeness(merge, source).forward == pytest.approx(0, abs=1e-6)


def test_perplexity_by_hand() -> None:
    found = perplexity(logs((0.5, 0.5), (0.125, 0.875)), torch.tensor([0, 0]))
    assert found == pytest.approx(4.0)  # exp((ln 2 + ln 8) / 2)
    assert perplexity(torch.tensor([[-1000.0, 0.0]]), torch.tensor([0])) == math.inf


@pytest.mark.parametrize("start", [0, 3])
def test_log_probs_speak_of_the_tokens_that_count(start: int) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    module = LlamaForCausalLM(config).eval()
    text = Text((3, 1, 4, 1, 5, 9), start)
    found, tokens = log_probs(module, [text, text]), targets([text, text])
    n = 5 if start == 0 else 3  # nothing stands before the first token
    assert found.shape == (2 * n, 20)
    assert tokens.tolist() == 2 * list(text.ids[6 - n :])
    loss = float(
        module(input_ids=torch.tensor([text.ids]), labels=torch.tensor([[-100] * start + list(text.ids[start:])])).loss
    )
    assert perplexity(found, tokens) == pytest.approx(math.exp(loss), rel=1e-4)
