package verdict

import (
	"math"
	"testing"
)

// TestPoissonBounds compares with tables of the chi-square distribution (Abramowitz and Stegun, table 26.8; Garwood 1936), whose halves the bounds are.
func TestPoissonBounds(t *testing.T) {
	for _, c := range []struct {
		degrees  int // of freedom
		p, table float64
	}{
		{2, 0.95, 5.99146}, {4, 0.95, 9.48773}, {6, 0.95, 12.5916}, {8, 0.95, 15.5073}, {10, 0.95, 18.3070}, {12, 0.95, 21.0261}, {20, 0.95, 31.4104}, {30, 0.95, 43.7729}, {60, 0.95, 79.0819}, {100, 0.95, 124.342},
		{2, 0.05, 0.102587}, {4, 0.05, 0.710721}, {6, 0.05, 1.63539}, {10, 0.05, 3.94030}, {20, 0.05, 10.8508}, {30, 0.05, 18.4926}, {60, 0.05, 43.1879}, {100, 0.05, 77.9295},
		{2, 0.001, 0.00200100}, {4, 0.001, 0.0908040}, {10, 0.001, 1.47874}, {20, 0.001, 5.92104}, {100, 0.001, 61.9179},
		{2, 0.999, 13.8155}, {20, 0.999, 45.3147}, {100, 0.999, 149.449}, {1, 0.95, 3.84146}, {1, 0.5, 0.454936}, {3, 0.5, 2.36597},
	} {
		if got := 2 * gammaQuantile(float64(c.degrees)/2, c.p); math.Abs(got-c.table) > 6e-6*c.table {
			t.Errorf("chi-square with %d degrees of freedom at %g: %.7g, the table has %.6g", c.degrees, c.p, got, c.table)
		}
	}
	for _, c := range []struct {
		n            int64
		lower, upper float64 // one-sided, 95 %
	}{{0, 0, 2.996}, {1, 0.0513, 4.744}, {2, 0.355, 6.296}, {3, 0.818, 7.754}, {5, 1.970, 10.513}, {10, 5.425, 16.962}} {
		if l, u := poissonLower(c.n, 0.95), poissonUpper(c.n, 0.95); math.Abs(l-c.lower) > 6e-4 || math.Abs(u-c.upper) > 6e-4 {
			t.Errorf("%d events: %.4f to %.4f, the table has %.4f to %.4f", c.n, l, u, c.lower, c.upper)
		}
	}
}

// TestPoissonDefinition sums the distribution itself: at the upper bound n events or fewer are as likely as was said, at the lower one n or more.
func TestPoissonDefinition(t *testing.T) {
	atMost := func(n int64, rate float64) float64 {
		sum := 0.0
		for k := int64(0); k <= n; k++ {
			sum += math.Exp(float64(k)*math.Log(rate) - rate - lgamma(float64(k)+1))
		}
		return sum
	}
	for _, n := range []int64{0, 1, 2, 7, 40, 300, 3000} {
		for _, confidence := range []float64{0.9, 0.95, 0.999} {
			if p := atMost(n, poissonUpper(n, confidence)); math.Abs(p-(1-confidence)) > 1e-9 {
				t.Errorf("%d events: the upper bound at %g leaves %g", n, confidence, p)
			}
			if n == 0 {
				continue
			}
			if p := 1 - atMost(n-1, poissonLower(n, confidence)); math.Abs(p-(1-confidence)) > 1e-9 {
				t.Errorf("%d events: the lower bound at %g leaves %g", n, confidence, p)
			}
		}
	}
	if u := poissonUpper(1e7, 0.95); math.Abs(u-1e7-1.645*math.Sqrt(1e7)) > 10 {
		t.Errorf("ten million events: %g", u)
	}
}
