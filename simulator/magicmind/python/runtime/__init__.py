"""The names of `magicmind.python.runtime` that `helpers` uses."""

# ruff: noqa: F401
from magicmind.calibration import CalibDataInterface, Calibrator
from magicmind.config import BuilderConfig
from magicmind.device import Device, System
from magicmind.model import Builder, Model
from magicmind.network import Network
from magicmind.values import Code, DataType, Dims, ModelKind, QuantizationAlgorithm, Status
