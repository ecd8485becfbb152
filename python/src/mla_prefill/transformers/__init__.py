# SPDX-License-Identifier: Apache-2.0
"""MLA models of the library transformers on these kernels.

``enable(model)`` switches the MLA attention of a loaded model to `MLAPrefillLayer`,
``register()`` alone adds ``attn_implementation="mla_prefill"`` for models as they are.
``python -m mla_prefill transformers`` says which of the installed version's classes
can be switched. Importing this package imports torch and transformers.
"""

from mla_prefill.transformers.cache import LatentCache
from mla_prefill.transformers.registration import register
from mla_prefill.transformers.switch import disable, enable

__all__ = ["LatentCache", "disable", "enable", "register"]
