"""Imported once by the process from which those to be killed are forked: nothing here may start a thread."""

import onnx
import onnxruntime
import onnxruntime.quantization
import pycocotools.cocoeval
import torch

from helpers import cli
from helpers.backends import calibration, quantize
from helpers.backends import onnxruntime as backend
from helpers.export import export, network
from helpers.measure import benchmark, evaluate
from helpers.pose import decode

torch.set_num_threads(1)
network.build("MobileNetv2")  # imports mmpose
decode.warm_up()

__all__ = ["backend", "benchmark", "calibration", "cli", "evaluate", "export", "network", "onnx"]
__all__ += ["onnxruntime", "pycocotools", "quantize", "torch"]
