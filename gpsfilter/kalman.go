package gpsfilter

import "math"

// kalman is a Kalman filter over position, velocity and the slowly varying
// bias of the reported position, each east and north:
//
//	x = (pe, pn, ve, vn, be, bn),  a fix shows p + b + white noise.
//
// p holds the upper triangle of the covariance, row by row. The bias is a
// first-order Gauss-Markov process (Brown and Hwang, "Introduction to Random
// Signals and Applied Kalman Filtering"): it cannot be seen apart from the
// position for long, but it keeps the filter from averaging errors that do not
// average out and keeps the stated covariance honest.
type kalman struct {
	x [6]float64
	p [21]float64
}

// Places in the upper triangle.
const (
	p00, p01, p02, p03, p04, p05 = 0, 1, 2, 3, 4, 5
	p11, p12, p13, p14, p15      = 6, 7, 8, 9, 10
	p22, p23, p24, p25           = 11, 12, 13, 14
	p33, p34, p35                = 15, 16, 17
	p44, p45                     = 18, 19
	p55                          = 20
)

// noise is the process noise of one prediction: the white acceleration's
// spectral density as a symmetric matrix in m²/s³, the bias's decay and added
// variance per axis.
type noise struct {
	qee, qen, qnn    float64
	decay, biasVarM2 float64
}

// predict moves the state on by dt seconds.
func (k *kalman) predict(dt float64, q noise) {
	x, p := &k.x, &k.p
	x[0] += float64(dt * x[2])
	x[1] += float64(dt * x[3])
	x[4] *= q.decay
	x[5] *= q.decay

	dt2 := float64(dt * dt)
	c3, c2 := float64(dt2*dt)/3, dt2/2
	p[p00] += float64(2*float64(dt*p[p02])) + float64(dt2*p[p22]) + float64(c3*q.qee)
	p[p01] += float64(dt*(p[p03]+p[p12])) + float64(dt2*p[p23]) + float64(c3*q.qen)
	p[p11] += float64(2*float64(dt*p[p13])) + float64(dt2*p[p33]) + float64(c3*q.qnn)
	p[p02] += float64(dt*p[p22]) + float64(c2*q.qee)
	p[p03] += float64(dt*p[p23]) + float64(c2*q.qen)
	p[p12] += float64(dt*p[p23]) + float64(c2*q.qen)
	p[p13] += float64(dt*p[p33]) + float64(c2*q.qnn)
	d := q.decay
	p[p04] = float64(d * (p[p04] + float64(dt*p[p24])))
	p[p05] = float64(d * (p[p05] + float64(dt*p[p25])))
	p[p14] = float64(d * (p[p14] + float64(dt*p[p34])))
	p[p15] = float64(d * (p[p15] + float64(dt*p[p35])))
	p[p22] += float64(dt * q.qee)
	p[p23] += float64(dt * q.qen)
	p[p33] += float64(dt * q.qnn)
	p[p24] *= d
	p[p25] *= d
	p[p34] *= d
	p[p35] *= d
	d2 := float64(d * d)
	p[p44] = float64(d2*p[p44]) + q.biasVarM2
	p[p45] *= d2
	p[p55] = float64(d2*p[p55]) + q.biasVarM2
}

// innovationCov returns the covariance of p + b.
func (k *kalman) innovationCov() (ee, en, nn float64) {
	p := &k.p
	ee = p[p00] + float64(2*p[p04]) + p[p44]
	en = p[p01] + p[p05] + p[p14] + p[p45]
	nn = p[p11] + float64(2*p[p15]) + p[p55]
	return ee, en, nn
}

// updatePosition takes a position (e, n) of variance r per axis.
func (k *kalman) updatePosition(e, n, r float64) {
	x, p := &k.x, &k.p
	h := [6]float64{p[p00] + p[p04], p[p01] + p[p14], p[p02] + p[p24], p[p03] + p[p34], p[p04] + p[p44], p[p05] + p[p45]}
	k.gain(&h, e-x[0]-x[4], h[0]+h[4]+r)
	h = [6]float64{p[p01] + p[p05], p[p11] + p[p15], p[p12] + p[p25], p[p13] + p[p35], p[p14] + p[p45], p[p15] + p[p55]}
	k.gain(&h, n-x[1]-x[5], h[1]+h[5]+r)
}

// updateVelocity takes the component of the velocity in direction (ue, un), a
// unit vector, with variance r.
func (k *kalman) updateVelocity(ue, un, speed, r float64) {
	x, p := &k.x, &k.p
	h := [6]float64{
		float64(ue*p[p02]) + float64(un*p[p03]),
		float64(ue*p[p12]) + float64(un*p[p13]),
		float64(ue*p[p22]) + float64(un*p[p23]),
		float64(ue*p[p23]) + float64(un*p[p33]),
		float64(ue*p[p24]) + float64(un*p[p34]),
		float64(ue*p[p25]) + float64(un*p[p35]),
	}
	s := float64(ue*h[2]) + float64(un*h[3]) + r
	k.gain(&h, speed-float64(ue*x[2])-float64(un*x[3]), s)
}

// gain applies a scalar measurement whose covariance with the state is h,
// innovation y and innovation variance s.
func (k *kalman) gain(h *[6]float64, y, s float64) {
	x, p := &k.x, &k.p
	inv := 1 / s
	h0, h1, h2, h3, h4, h5 := h[0], h[1], h[2], h[3], h[4], h[5]
	g0, g1, g2 := float64(h0*inv), float64(h1*inv), float64(h2*inv)
	g3, g4, g5 := float64(h3*inv), float64(h4*inv), float64(h5*inv)
	x[0] += float64(g0 * y)
	x[1] += float64(g1 * y)
	x[2] += float64(g2 * y)
	x[3] += float64(g3 * y)
	x[4] += float64(g4 * y)
	x[5] += float64(g5 * y)
	p[p00] -= float64(g0 * h0)
	p[p01] -= float64(g0 * h1)
	p[p02] -= float64(g0 * h2)
	p[p03] -= float64(g0 * h3)
	p[p04] -= float64(g0 * h4)
	p[p05] -= float64(g0 * h5)
	p[p11] -= float64(g1 * h1)
	p[p12] -= float64(g1 * h2)
	p[p13] -= float64(g1 * h3)
	p[p14] -= float64(g1 * h4)
	p[p15] -= float64(g1 * h5)
	p[p22] -= float64(g2 * h2)
	p[p23] -= float64(g2 * h3)
	p[p24] -= float64(g2 * h4)
	p[p25] -= float64(g2 * h5)
	p[p33] -= float64(g3 * h3)
	p[p34] -= float64(g3 * h4)
	p[p35] -= float64(g3 * h5)
	p[p44] -= float64(g4 * h4)
	p[p45] -= float64(g4 * h5)
	p[p55] -= float64(g5 * h5)
}

// start sets the state to a first fix at (e, n): the bias is unknown, so
// position and bias are exactly as uncertain as they are opposed.
func (k *kalman) start(e, n, r, biasVar, velVar float64) {
	*k = kalman{}
	k.x[0], k.x[1] = e, n
	k.p[p00], k.p[p11] = r+biasVar, r+biasVar
	k.p[p04], k.p[p15] = -biasVar, -biasVar
	k.p[p22], k.p[p33] = velVar, velVar
	k.p[p44], k.p[p55] = biasVar, biasVar
}

// leave moves the state to where a fix at (e, n) shows it, with the bias as
// it is, a velocity and their variances.
func (k *kalman) leave(e, n, ve, vn, posVar, velVar float64) {
	k.x[0], k.x[1] = e, n
	k.x[2], k.x[3] = ve, vn
	k.p[p00] += posVar
	k.p[p11] += posVar
	for _, i := range [...]int{p02, p03, p12, p13, p23, p24, p25, p34, p35} {
		k.p[i] = 0
	}
	k.p[p22], k.p[p33] = velVar, velVar
}

// free adds an unknown acceleration's covariance: of the position, of position
// with velocity, of the velocity.
func (k *kalman) free(pos, posVel, vel float64) {
	k.p[p00] += pos
	k.p[p11] += pos
	k.p[p02] += posVel
	k.p[p13] += posVel
	k.p[p22] += vel
	k.p[p33] += vel
}

// freeAcross is free for the direction across the course (ue, un), a unit
// vector, alone.
func (k *kalman) freeAcross(ue, un, pos, posVel, vel float64) {
	ee, en, nn := float64(un*un), -float64(ue*un), float64(ue*ue)
	p := &k.p
	p[p00] += float64(pos * ee)
	p[p01] += float64(pos * en)
	p[p11] += float64(pos * nn)
	p[p02] += float64(posVel * ee)
	p[p03] += float64(posVel * en)
	p[p12] += float64(posVel * en)
	p[p13] += float64(posVel * nn)
	p[p22] += float64(vel * ee)
	p[p23] += float64(vel * en)
	p[p33] += float64(vel * nn)
}

// repair keeps the state within what is possible against rounding and garbage:
// variances positive and bounded, the speed below what a vehicle can drive.
func (k *kalman) repair(maxSpeed float64) {
	const minVar, maxVar = 1e-6, 1e12
	for _, i := range [...]int{p00, p11, p22, p33, p44, p55} {
		if !(k.p[i] >= minVar && k.p[i] <= maxVar) {
			k.p[i] = min(maxVar, max(minVar, k.p[i]))
		}
	}
	v2 := float64(k.x[2]*k.x[2]) + float64(k.x[3]*k.x[3])
	if v2 > float64(maxSpeed*maxSpeed) {
		f := maxSpeed / math.Sqrt(v2)
		k.x[2] *= f
		k.x[3] *= f
		k.p[p22] += v2
		k.p[p33] += v2
	}
}

// speed returns the length of the velocity in metres per second.
func (k *kalman) speed() float64 {
	return math.Sqrt(float64(k.x[2]*k.x[2]) + float64(k.x[3]*k.x[3]))
}

// mahalanobis returns the squared normalised length of (e, n) under the
// covariance [[a, b], [b, c]].
func mahalanobis(e, n, a, b, c float64) float64 {
	det := float64(a*c) - float64(b*b)
	if det <= 0 {
		return 0
	}
	return max(0, (float64(float64(e*e)*c)-float64(2*float64(float64(e*n)*b))+float64(float64(n*n)*a))/det)
}
