package fleet

import "testing"

func TestCompareNatural(t *testing.T) {
	for _, pair := range [][2]string{{"gpu/2", "gpu/10"}, {"gpu/3", "gpu/3/nvlink/0"}, {"disk/nvme2n1", "disk/nvme10n1"}, {"gpu/3/nvlink/9", "gpu/3/nvlink/10"}, {"gpu/9", "hca/mlx5_0"}, {"", "a"}, {"a", "ab"}} {
		if CompareNatural(pair[0], pair[1]) >= 0 || CompareNatural(pair[1], pair[0]) <= 0 {
			t.Errorf("%q does not come before %q", pair[0], pair[1])
		}
	}
	if CompareNatural("gpu/2", "gpu/02") != 0 || CompareNatural("", "") != 0 {
		t.Error("equal names differ")
	}
}
