"""Answers to `magicmind.python.runtime`: the names that public code is known to take from it."""

from helpers.backends.simulator.calibrator import CalibDataInterface, Calibrator, RemoteConfig
from helpers.backends.simulator.config import BuilderConfig
from helpers.backends.simulator.device import Device, System
from helpers.backends.simulator.graph import Network
from helpers.backends.simulator.model import Builder, Model
from helpers.backends.simulator.values import Code, DataType, Dims, ModelKind, QuantizationAlgorithm, Status

__all__ = [
    "Builder",
    "BuilderConfig",
    "CalibDataInterface",
    "Calibrator",
    "Code",
    "DataType",
    "Device",
    "Dims",
    "Model",
    "ModelKind",
    "Network",
    "QuantizationAlgorithm",
    "RemoteConfig",
    "Status",
    "System",
]
