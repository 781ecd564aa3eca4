"""`hfvla predict`: one picture, one answer."""

from typing import Any

import torch

from hfvla.data.pictures import load_picture


def predict(model: Any, processor: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Return the lamp that is on, and how sure that is."""
    batch = processor([load_picture(request["image"])]).to(model.device)
    with torch.inference_mode():
        shares = model(**batch).logits[0].softmax(-1).tolist()
    named = dict(zip(processor.lamps, shares, strict=True))
    return {"lamp": max(named, key=named.__getitem__), "shares": named}
