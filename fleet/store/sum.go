package store

import (
	"bytes"
	"errors"
	"hash/crc32"
	"strings"
)

// Each record and event ends in a checksum over its key and itself, written as white space, which JSON may end in: what a program writes that knows nothing of
// checksums is read as well, and such a program reads on. Secrets have none, as what seals them proves them.
const (
	sumLen      = 16
	sumAlphabet = " \t\n\r" // two bits each
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errSum = errors.New("is not what was written: its checksum does not fit")

func sumOf(key, b []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, key), castagnoli, b)
}

// withSum appends the checksum of what is stored under key.
func withSum(key, b []byte) []byte {
	sum := sumOf(key, b)
	for i := sumLen - 1; i >= 0; i-- {
		b = append(b, sumAlphabet[sum>>(2*i)&3])
	}
	return b
}

// cutSum checks the checksum of what is stored under key and takes it off. summed is false where there is none.
func cutSum(key, b []byte) (body []byte, summed bool, err error) {
	n := len(b) - len(bytes.TrimRight(b, sumAlphabet))
	switch {
	case n == 0:
		return b, false, nil
	case n < sumLen:
		return b, false, errSum
	}
	body = b[:len(b)-sumLen]
	var sum uint32
	for _, c := range b[len(b)-sumLen:] {
		sum = sum<<2 | uint32(strings.IndexByte(sumAlphabet, c))
	}
	if sum != sumOf(key, body) {
		return b, false, errSum
	}
	return body, true, nil
}
