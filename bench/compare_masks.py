"""What a mask costs with NumPy and SciPy: TokenCut by a dense eigensolver and the fast bilateral solver.

Prints one line a size: "patches milliseconds processor-milliseconds", the medians over the given number of rounds.
One thread; run by bench/masks -compare, which runs the Go side in turn with it. Needs numpy and scipy.
"""

import os
import sys
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import scipy.linalg
import scipy.ndimage
import scipy.sparse
import scipy.sparse.linalg

EPS = 1e-5
YUV = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
KEYS = 255 ** np.arange(5, dtype=np.int64)


def cut(features, grid, tau):
    """features [N, dim] -> component [gh, gw]; the second eigenvector of (D - W) z = lambda D z."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    w = np.where(unit @ unit.T > tau, 1.0, EPS)
    d = w.sum(1)
    _, z = scipy.linalg.eigh(np.diag(d) - w, np.diag(d), subset_by_index=[1, 2])
    z = z[:, 0]
    side = z > z.mean()
    seed = np.argmax(np.abs(z))
    if not side[seed]:
        side = ~side
    labels, _ = scipy.ndimage.label(side.reshape(grid))
    return labels == labels.flat[seed]


def solve(rgb, target):
    """rgb [h, w, 3] u8, target [h, w] of 0 and 1 -> mask [h, w]."""
    h, w = target.shape
    y, x = np.mgrid[:h, :w]
    yuv = np.tensordot(rgb, YUV, ([2], [1])) + np.array([0, 128.0, 128.0])
    coordinates = np.dstack([x // 16, y // 16, (yuv / [16, 8, 8]).astype(np.int64)]).reshape(-1, 5)
    key, vertex = np.unique(coordinates @ KEYS, return_inverse=True)
    v = len(key)
    splat = scipy.sparse.csr_matrix((np.ones(h * w), (vertex.ravel(), np.arange(h * w))))
    blur = 10 * scipy.sparse.identity(v, format="csr")
    for step in KEYS:
        at = np.searchsorted(key, key + step)
        at[at == v] = 0
        here = np.nonzero(key[at] == key + step)[0]
        one = scipy.sparse.csr_matrix((np.ones(len(here)), (here, at[here])), shape=(v, v))
        blur = blur + one + one.T
    count = splat @ np.ones(h * w)
    n = np.ones(v)
    for _ in range(10):
        n = np.sqrt(n * count / (blur @ n))
    m = n * (blur @ n)
    dn = scipy.sparse.diags(n)
    a = 256 * (scipy.sparse.diags(m) - dn @ blur @ dn) + scipy.sparse.diags(0.999 * count)
    b = splat @ (0.999 * target.ravel())
    jacobi = scipy.sparse.diags(1 / np.maximum(a.diagonal(), 1e-5))
    solution, _ = scipy.sparse.linalg.cg(a, b, x0=b / (0.999 * count), M=jacobi, rtol=1e-5, maxiter=25)
    mask = scipy.ndimage.binary_fill_holes((splat.T @ solution).reshape(h, w) > 0.5)
    labels, regions = scipy.ndimage.label(mask)
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]) if regions else mask


def material(grid, size):
    """The features and the picture of adapt's BenchmarkMask: three things in a row, a picture of sloping colours with noise."""
    random = np.random.default_rng(5)
    n = grid[0] * grid[1]
    centre = random.standard_normal((3, 384))
    features = (centre[np.arange(n) * 3 // n] + 0.9 * random.standard_normal((n, 384))).astype(np.float32)
    y, x, c = np.mgrid[: size[0], : size[1], :3]
    rgb = 60 + 40 * c + (x * (c + 1) // 3 + y * (3 - c) // 4) % 90 + random.integers(0, 25, (*size, 3))
    return features, np.minimum(rgb, 255).astype(np.uint8)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for grid, size in (((14, 14), (224, 224)), ((16, 16), (224, 224)), ((30, 40), (332, 500))):
        features, rgb = material(grid, size)
        rows, columns = (np.arange(size[i]) * grid[i] // size[i] for i in (0, 1))
        wall, processor = [], []
        for _ in range(rounds):
            start, cpu = time.perf_counter(), time.process_time()
            target = cut(features, grid, 0.45)[np.ix_(rows, columns)].astype(float)
            mask = solve(rgb, target)
            wall.append(time.perf_counter() - start)
            processor.append(time.process_time() - cpu)
            assert mask.shape == size
        print(grid[0] * grid[1], f"{1e3 * np.median(wall):.2f} {1e3 * np.median(processor):.2f}", flush=True)


if __name__ == "__main__":
    main()
