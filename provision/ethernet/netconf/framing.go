package netconf

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// maxMessage bounds one message.
const maxMessage = 16 << 20

var errTooLong = errors.New("the message is longer than 16 MiB")

// endOfMessage ends a message of NETCONF 1.0, and both hellos (RFC 6242, 4.3).
const endOfMessage = "]]>]]>"

// readEnded reads a message that ends with endOfMessage.
func readEnded(r *bufio.Reader) ([]byte, error) {
	var out []byte
	for {
		part, err := r.ReadSlice('>')
		out = append(out, part...)
		switch {
		case len(out) > maxMessage:
			return nil, errTooLong
		case errors.Is(err, bufio.ErrBufferFull):
		case err != nil:
			return nil, err
		case bytes.HasSuffix(out, []byte(endOfMessage)):
			return bytes.TrimSuffix(out, []byte(endOfMessage)), nil
		}
	}
}

// readChunked reads a message of NETCONF 1.1: chunks with their sizes before them (RFC 6242, 4.2).
func readChunked(r *bufio.Reader) ([]byte, error) {
	var out []byte
	for {
		size, last, err := readHead(r)
		switch {
		case err != nil:
			return nil, err
		case last && len(out) == 0:
			return nil, errors.New("a message has no chunk")
		case last:
			return out, nil
		case size > maxMessage-len(out):
			return nil, errTooLong
		}
		at := len(out)
		out = append(out, make([]byte, size)...)
		if _, err := io.ReadFull(r, out[at:]); err != nil {
			return nil, err
		}
	}
}

// readHead reads "\n#SIZE\n", or "\n##\n", which is the last of a message.
func readHead(r *bufio.Reader) (size int, last bool, err error) {
	var lf [2]byte
	if _, err := io.ReadFull(r, lf[:]); err != nil {
		return 0, false, err
	}
	if string(lf[:]) != "\n#" {
		return 0, false, fmt.Errorf("a chunk begins with %q", lf)
	}
	var digits []byte
	for len(digits) <= 10 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, false, err
		}
		if b != '\n' {
			digits = append(digits, b)
			continue
		}
		if string(digits) == "#" {
			return 0, true, nil
		}
		n, err := strconv.ParseUint(string(digits), 10, 32)
		if err != nil || n == 0 || digits[0] == '0' {
			return 0, false, fmt.Errorf("%q is no size of a chunk", digits)
		}
		return int(n), false, nil
	}
	return 0, false, fmt.Errorf("%q is no size of a chunk", digits)
}
