"""Imported once by the process from which those to be killed are forked: nothing here may start a thread."""

import onnx
import onnxruntime
import onnxruntime.quantization
import pycocotools.cocoeval
import torch

from helpers import benchmark, calibration, cli, decode, evaluate, export, journal, network
from helpers.backends import onnxruntime as backend
from helpers.backends import qdq

torch.set_num_threads(1)
network.build("MobileNetv2")  # imports mmpose
decode.warm_up()

__all__ = ["backend", "benchmark", "calibration", "cli", "evaluate", "export", "journal", "network", "onnx"]
__all__ += ["onnxruntime", "pycocotools", "qdq", "torch"]
