//go:build !cgo

package main

func libc() string { return "none" }
