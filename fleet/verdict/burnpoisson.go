package verdict

import "math"

// poissonUpper is the rate, in events per observation, that a Poisson process does not exceed with the given confidence when n events were seen: half
// the chi-square quantile with 2n+2 degrees of freedom (F. Garwood, Fiducial limits for the Poisson distribution, Biometrika 28, 1936).
func poissonUpper(n int64, confidence float64) float64 {
	return gammaQuantile(float64(n)+1, confidence)
}

// poissonLower is the rate that it is not below with the given confidence: half the chi-square quantile with 2n degrees of freedom, 0 where none was seen.
func poissonLower(n int64, confidence float64) float64 {
	if n <= 0 {
		return 0
	}
	return gammaQuantile(float64(n), 1-confidence)
}

// gammaQuantile is the x at which the regularised incomplete gamma function P(a, x) is p, for a > 0 and p in (0, 1): Newton's steps from the
// approximation of Wilson and Hilferty, kept inside a bracket that shrinks.
func gammaQuantile(a, p float64) float64 {
	z := math.Sqrt2 * math.Erfinv(2*p-1)
	c := 1 - 1/(9*a) + z/(3*math.Sqrt(a))
	x := a * c * c * c
	if !(x > 0) || a < 1 {
		x = math.Exp((math.Log(p) + lgamma(a+1)) / a) // P(a, x) is about x^a / gamma(a+1) near 0
	}
	low, high := 0.0, math.Inf(1)
	for range 200 {
		d := gammaP(a, x) - p
		if d > 0 {
			high = x
		} else {
			low = x
		}
		step := d / math.Exp((a-1)*math.Log(x)-x-lgamma(a))
		next := x - step
		if !(next > low && next < high) { // also where the density is too small to divide by
			next = (low + high) / 2
			if math.IsInf(high, 1) {
				next = 2 * x
			}
		}
		if math.Abs(next-x) <= 1e-14*x {
			return next
		}
		x = next
	}
	return x
}

func lgamma(x float64) float64 {
	v, _ := math.Lgamma(x)
	return v
}

// gammaP is the regularised lower incomplete gamma function, by its series below a+1 and by the continued fraction of its complement above (Abramowitz
// and Stegun, 6.5.29 and 6.5.31; the fraction by Lentz's method).
func gammaP(a, x float64) float64 {
	if x <= 0 {
		return 0
	}
	front := math.Exp(a*math.Log(x) - x - lgamma(a))
	if x < a+1 {
		term := 1 / a
		sum := term
		for k := a + 1; math.Abs(term) > 1e-17*math.Abs(sum); k++ {
			term *= x / k
			sum += term
		}
		return front * sum
	}
	const tiny = 1e-300
	b := x + 1 - a
	c, d := 1/tiny, 1/b
	h := d
	for i := 1.0; i < 1e6; i++ {
		an := -i * (i - a)
		b += 2
		if d = an*d + b; math.Abs(d) < tiny {
			d = tiny
		}
		if c = b + an/c; math.Abs(c) < tiny {
			c = tiny
		}
		d = 1 / d
		h *= d * c
		if math.Abs(d*c-1) < 1e-16 {
			break
		}
	}
	return 1 - front*h
}
