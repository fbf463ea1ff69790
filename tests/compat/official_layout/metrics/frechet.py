import numpy as np
import scipy.linalg


def distance(real, fake):
    mu, sigma = zip(*((x.mean(0), np.cov(x, rowvar=False) + np.eye(x.shape[1])) for x in (real, fake)))  # noqa: B905
    root, _ = scipy.linalg.sqrtm(np.dot(*sigma), disp=False)
    return float(np.real(np.square(mu[0] - mu[1]).sum() + np.trace(sigma[0] + sigma[1] - root * 2)))


def trimmed_mean(dist):
    lo = np.percentile(dist, 1, interpolation="lower")
    hi = np.percentile(dist, 99, interpolation="higher")
    return float(np.extract(np.logical_and(dist >= lo, dist <= hi), dist).mean())
