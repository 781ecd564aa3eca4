"""Checkpoints for other programs: ONNX and OpenVINO with few bits; plain backbones for transformers, peft, vLLM."""
