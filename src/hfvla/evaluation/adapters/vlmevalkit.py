"""How a checkpoint becomes a model of VLMEvalKit.

```python
from vlmeval.config import supported_VLM
from hfvla.evaluation.adapters.vlmevalkit import register

register("stage2", "outputs/stage2")  # then: vlmeval.run's main with --model stage2 --data MMStar
```
"""

from __future__ import annotations

from functools import partial
from typing import Any

__all__ = ["register"]


def register(name: str, checkpoint: str, **settings: Any) -> None:
    """Make a checkpoint known to VLMEvalKit under a name, for `run.py --model NAME`.

    Args:
        name: as the command line will say it.
        checkpoint: folder or hub id.
        settings: of `HfvlaVLM`.
    """
    from vlmeval.config import supported_VLM

    from hfvla.evaluation.adapters.vlmevalkit_model import HfvlaVLM

    supported_VLM[name] = partial(HfvlaVLM, model_path=checkpoint, **settings)
