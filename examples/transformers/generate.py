"""A model of transformers on these kernels: the same tokens, in less time.

    pip install ./python transformers
    python examples/transformers/generate.py [prompt tokens]

The model has DeepSeek-V3's architecture, small, with random weights. One line switches it:
enable(model).

SPDX-License-Identifier: Apache-2.0
"""

import sys
import time

import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from mla_prefill.transformers import LatentCache, disable, enable

NEW_TOKENS = 16


def generate(model, prompt, **how):
    """The tokens, and the processor time they took."""
    started = time.process_time()
    tokens = model.generate(prompt, max_new_tokens=NEW_TOKENS, do_sample=False, **how)
    return tokens[:, prompt.shape[1] :], time.process_time() - started


def main(length):
    torch.manual_seed(0)
    config = DeepseekV3Config(
        vocab_size=1000,
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=2,
        first_k_dense_replace=2,
        num_attention_heads=16,
        num_key_value_heads=16,
        max_position_embeddings=16384,
        initializer_range=0.1,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = DeepseekV3ForCausalLM(config).eval()
    prompt = torch.randint(1, 1000, (1, length))

    own, own_time = generate(model, prompt)
    print(f"its own attention:  {own_time:6.2f} s  {own[0, :8].tolist()} ...")
    enable(model)
    switched, time_taken = generate(model, prompt, cache=LatentCache(config))
    print(f"enable(model):      {time_taken:6.2f} s  {switched[0, :8].tolist()} ...")
    disable(model)
    same = torch.equal(own, switched)
    print(f"{NEW_TOKENS} tokens after {length}: {'the same' if same else 'NOT the same'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024))
