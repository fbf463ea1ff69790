"""How good generated images are: feature networks, statistics, metrics.

    compute           metrics of a generator, by name; on all processes of a torch.distributed group
    functional        the formulas, on plain feature tensors
    equivariance      operators that move and turn images
    detectors         the feature networks
"""

from sg3.metrics.driver import compute
from sg3.metrics.names import STANDARD, Metric, parse
from sg3.metrics.real import RealImages
from sg3.metrics.record import MetricResult

__all__ = ["STANDARD", "Metric", "MetricResult", "RealImages", "compute", "parse"]
