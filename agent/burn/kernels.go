package burn

import (
	"bytes"
	"compress/flate"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash/crc32"
	"hash/fnv"
	"math"
	"math/bits"
	"slices"
)

// Kernel is deterministic work: the same seed and scale give the same digest on every core that computes rightly. Its work grows with scale.
type Kernel struct {
	Name string
	Run  func(seed uint64, scale int) uint64
}

// Kernels exercise different units of a core. Cryptography, checksums and comparisons of bytes are assembly in Go's library, which uses the vector units.
var Kernels = []Kernel{
	{"integer", integers},
	{"float", floats},
	{"matrix", matrices},
	{"sha", hashes},
	{"aes", ciphers},
	{"sort", sorts},
	{"deflate", deflates},
}

// mix is splitmix64: every seed begins another sequence.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func integers(seed uint64, scale int) uint64 {
	a, b, c, d := mix(seed), mix(seed+1), mix(seed+2), mix(seed+3)|1
	for range scale * 4000 {
		hi, lo := bits.Mul64(a, b)
		a = bits.RotateLeft64(a^lo, 13) + c
		b = b*d + hi
		c ^= a / (b | 1)
		d = (d + uint64(bits.OnesCount64(c))<<7 + uint64(bits.LeadingZeros64(a))) | 1
	}
	return a ^ b ^ c ^ d
}

func floats(seed uint64, scale int) uint64 {
	x, y, z := 1+float64(mix(seed)>>12)/(1<<52), 1+float64(mix(seed+1)>>12)/(1<<52), 0.5
	for range scale * 1500 {
		z = math.FMA(x, y, z)
		x = math.Sqrt(z+1) / (y + 0.25)
		y = y*0.75 + x*0.25 + 1/(z+2)
		if z > 1e6 {
			z *= 1e-6
		}
	}
	return math.Float64bits(x) ^ bits.RotateLeft64(math.Float64bits(y), 21) ^ bits.RotateLeft64(math.Float64bits(z), 42)
}

func matrices(seed uint64, scale int) uint64 {
	const n = 48
	var a, b, c [n * n]float64
	for i := range a {
		a[i], b[i] = float64(mix(seed+uint64(i))>>40)/(1<<24), float64(mix(^seed-uint64(i))>>40)/(1<<24)
	}
	for range max(1, scale/2) {
		for i := range n {
			row := c[i*n : i*n+n]
			clear(row)
			for k := range n {
				f, from := a[i*n+k], b[k*n:k*n+n]
				for j := range row {
					row[j] += f * from[j]
				}
			}
		}
		for i := range a {
			a[i] = c[i] / n
		}
	}
	digest := uint64(0)
	for _, x := range c {
		digest = mix(digest ^ math.Float64bits(x))
	}
	return digest
}

// noise is n bytes from a seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, 0, n+8)
	for i := uint64(0); len(b) < n; i++ {
		b = binary.LittleEndian.AppendUint64(b, mix(seed+i))
	}
	return b[:n]
}

func hashes(seed uint64, scale int) uint64 {
	b := noise(seed, 4096)
	for range scale {
		s, l := sha256.Sum256(b), sha512.Sum512(b)
		copy(b[mix(uint64(s[0]))%4000:], s[:])
		copy(b[mix(uint64(l[0]))%4000:], l[:])
	}
	return binary.LittleEndian.Uint64(b) ^ uint64(crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))<<16
}

func ciphers(seed uint64, scale int) uint64 {
	key := noise(seed, 32)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // a key of 32 bytes is one
	}
	sealer, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has the block size that it needs
	}
	plain, sealed := noise(seed+1, 8192), make([]byte, 0, 8192+16)
	for i := range scale * 2 {
		sealed = sealer.Seal(sealed[:0], key[:12], plain, nil)
		opened, err := sealer.Open(nil, key[:12], sealed, nil)
		if err != nil || !bytes.Equal(opened, plain) {
			return ^uint64(i) // what was sealed does not open: certainly not what the others get
		}
		copy(plain, sealed[16:])
	}
	h := fnv.New64a()
	_, _ = h.Write(sealed) // never fails
	return h.Sum64()
}

func sorts(seed uint64, scale int) uint64 {
	list := make([]uint64, 256*scale)
	for i := range list {
		list[i] = mix(seed + uint64(i))
	}
	slices.Sort(list)
	digest := uint64(0)
	for i, x := range list {
		digest = bits.RotateLeft64(digest, 5) ^ x + uint64(i)
	}
	return digest
}

func deflates(seed uint64, scale int) uint64 {
	text := make([]byte, 1024*scale)
	for i := range text { // runs and repeats, so that there is something to find
		text[i] = "the quick brown fox "[mix(seed+uint64(i/7))%20]
	}
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestSpeed)
	if err != nil {
		panic(err) // the level is one of the package's
	}
	_, _ = w.Write(text) // a buffer takes everything
	_ = w.Close()
	h := fnv.New64a()
	_, _ = h.Write(packed.Bytes())
	return h.Sum64()
}
