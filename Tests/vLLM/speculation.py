# SPDX-License-Identifier: Apache-2.0
"""N-gram speculation that proposes drafts whatever the last token was."""

DRAFTED = 4
NGRAM = {
    "method": "ngram",
    "num_speculative_tokens": DRAFTED,
    "prompt_lookup_max": 2,
    "prompt_lookup_min": 1,
}
