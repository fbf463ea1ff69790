"""How good generated images are: feature networks, statistics, metrics.

    names             what people write -> metrics (`parse`)
    fid kid fwd mind precision_recall density_coverage per_class inception_score path_length equivariance_psnr
                      the metrics, each in a file of its own; metric and features say what they have in common
    functional        their formulas, on plain feature tensors
    equivariance      operators that move and turn images
    detectors pixels  the feature networks, and what does without
    wavelets monge    the formulas that are longer; intervals: how far a value may be off
    real_images samples
                      real and generated images
    statistics moments real_statistics
                      what is gathered of them; what of real ones is kept on disk
    driver            `compute`: metrics of a generator; in all processes of a torch.distributed group
    network_files     the same of files, as `sg3 metrics` has it; results are written by results, drawn by plot
"""

from sg3.metrics.driver import compute
from sg3.metrics.metric import Metric
from sg3.metrics.names import STANDARD, parse
from sg3.metrics.real_images import RealImages
from sg3.metrics.results import MetricResult

__all__ = ["STANDARD", "Metric", "MetricResult", "RealImages", "compute", "parse"]
