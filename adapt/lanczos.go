package adapt

import (
	"errors"
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/lapack"
	lapackgonum "gonum.org/v1/gonum/lapack/gonum"
)

const (
	// pairResidual bounds ||M u - mu u|| of the second eigenvector; its error is
	// that over the gap to the third.
	pairResidual = 1e-9
	// gapResidual bounds the same for the third pair, of which only the value is
	// used: its error is the square of that over a gap.
	gapResidual = 1e-4

	lanczosCheck = 4 // products between two looks at the residuals
)

var errNoConvergence = errors.New("the eigenvalues of the patch graph did not converge")

// lanczos finds the smallest eigenpairs of (D - W) z = lambda D z but the
// trivial one (0, a constant z), through the symmetric form
//
//	M = D^-1/2 W D^-1/2,  M u = (1 - lambda) u,  z = D^-1/2 u
//
// with the trivial u = D^1/2 1 deflated: a Lanczos iteration from a fixed random
// vector, each new vector orthogonalised twice against all before it.
type lanczos struct {
	basis       []float64 // [k+2][n] rows: the trivial vector, then the Krylov basis
	alpha, beta []float64 // diagonal and off-diagonal of the projected matrix
	root        []float64 // [n] D^1/2
	scaled      []float64 // [n]
	overlap     []float64
	ritz        []float64 // [k] eigenvalues of the projected matrix, ascending
	off         []float64
	vectors     []float64 // [k][k] their vectors, in columns
	work        []float64
	products    int
}

// solve writes to z [n] the eigenvector of the second smallest eigenvalue, with
// z^T D z = 1 and any sign, and returns the second and third eigenvalues.
func (l *lanczos) solve(w *affinity, z []float64) (second, third float64, err error) {
	n := w.n
	l.start(w)
	limit := n - 1 // the dimension of what is left beside the trivial vector
	for k := 1; ; k++ {
		norm := l.step(w, k)
		exhausted := k == limit || norm < 1e-13
		if !exhausted && (k < 2*lanczosCheck || k%lanczosCheck != 0) {
			l.extend(n, k, norm)
			continue
		}
		if err := l.project(k); err != nil {
			return 0, 0, err
		}
		if exhausted || l.converged(k, norm) {
			break
		}
		l.extend(n, k, norm)
	}
	k := len(l.alpha)
	clear(z)
	for i := range k {
		floats.AddScaled(z, l.vectors[i*k+k-1], l.row(n, i+1))
	}
	floats.Scale(1/floats.Norm(z, 2), z)
	floats.Div(z, l.root)
	second, third = 1-l.ritz[k-1], 1.0
	if k > 1 {
		third = 1 - l.ritz[k-2]
	}
	return second, third, nil
}

func (l *lanczos) row(n, i int) []float64 { return l.basis[i*n : (i+1)*n] }

// start sets the trivial vector and the first of the Krylov basis.
func (l *lanczos) start(w *affinity) {
	n := w.n
	l.root, l.scaled = resized(l.root, n), resized(l.scaled, n)
	for i, d := range w.degree {
		l.root[i] = math.Sqrt(d)
	}
	l.alpha, l.beta = l.alpha[:0], l.beta[:0]
	l.basis = resized(l.basis, 3*n)
	l.products = 0
	trivial := l.row(n, 0)
	copy(trivial, l.root)
	floats.Scale(1/floats.Norm(trivial, 2), trivial)
	random := rand.New(rand.NewPCG(2202, 11539))
	v := l.row(n, 1)
	for i := range v {
		v[i] = random.NormFloat64()
	}
	l.orthogonalise(v, 1)
	floats.Scale(1/floats.Norm(v, 2), v)
}

// step computes row k+1 of the basis, not yet scaled, and returns its length.
func (l *lanczos) step(w *affinity, k int) float64 {
	n := w.n
	q, next := l.row(n, k), l.row(n, k+1)
	floats.DivTo(l.scaled, q, l.root)
	w.multiply(next, l.scaled)
	l.products++
	floats.Div(next, l.root)
	l.alpha = append(l.alpha, floats.Dot(q, next))
	l.orthogonalise(next, k+1)
	l.orthogonalise(next, k+1)
	return floats.Norm(next, 2)
}

// extend makes row k+1 a unit vector and room for the one after it.
func (l *lanczos) extend(n, k int, norm float64) {
	floats.Scale(1/norm, l.row(n, k+1))
	l.beta = append(l.beta, norm)
	if need := (k + 3) * n; cap(l.basis) < need {
		grown := make([]float64, need, need+16*n)
		copy(grown, l.basis)
		l.basis = grown
	} else {
		l.basis = l.basis[:need]
	}
}

// orthogonalise subtracts from v its components along the first rows of the basis.
func (l *lanczos) orthogonalise(v []float64, rows int) {
	n := len(v)
	l.overlap = resized(l.overlap, rows)
	q := blas64.General{Rows: rows, Cols: n, Data: l.basis, Stride: n}
	x, c := blas64.Vector{N: n, Data: v, Inc: 1}, blas64.Vector{N: rows, Data: l.overlap, Inc: 1}
	blas64.Gemv(blas.NoTrans, 1, q, x, 0, c)
	blas64.Gemv(blas.Trans, -1, q, c, 1, x)
}

// project finds the eigenpairs of the k x k tridiagonal matrix.
func (l *lanczos) project(k int) error {
	l.ritz = append(l.ritz[:0], l.alpha...)
	l.off = append(l.off[:0], l.beta...)
	l.vectors, l.work = resized(l.vectors, k*k), resized(l.work, max(1, 2*k-2))
	if !(lapackgonum.Implementation{}).Dsteqr(lapack.EVTridiag, k, l.ritz, l.off, l.vectors, k, l.work) {
		return errNoConvergence
	}
	return nil
}

// converged judges the two largest Ritz pairs by their residuals, norm times
// the last entry of their vectors.
func (l *lanczos) converged(k int, norm float64) bool {
	last := l.vectors[(k-1)*k : k*k]
	return norm*math.Abs(last[k-1]) < pairResidual && norm*math.Abs(last[k-2]) < gapResidual
}
