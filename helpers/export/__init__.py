"""Checkpoint -> torch module -> ONNX file, compared with PyTorch; needs torch and mmpose."""
