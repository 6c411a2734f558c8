//go:build cgo

package main

// #include <gnu/libc-version.h>
import "C"

// libc is the version of the C library that runs this program.
func libc() string { return C.GoString(C.gnu_get_libc_version()) }
