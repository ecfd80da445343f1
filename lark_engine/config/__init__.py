"""One frozen model for each stage. Command line, YAML recipe and form are derived from these.

A field's `identity` says whether it changes the output: only identity fields enter the fingerprint.
"""

from lark_engine.config.base import Device, Dtype, StageConfig
from lark_engine.config.evaluation import GenerateConfig, GradeConfig
from lark_engine.config.report import ReportConfig
from lark_engine.config.run import RunRecipe
from lark_engine.config.selection import Choices, PoolConfig, ScoreConfig, SelectConfig, TrainFormat
from lark_engine.config.training import SweepConfig, TrainConfig

__all__ = [
    "Choices",
    "Device",
    "Dtype",
    "GenerateConfig",
    "GradeConfig",
    "PoolConfig",
    "ReportConfig",
    "RunRecipe",
    "ScoreConfig",
    "SelectConfig",
    "StageConfig",
    "SweepConfig",
    "TrainConfig",
    "TrainFormat",
]
