// Package e2e runs the built program as its users do, on a simulated rack of machines that really boot.
package e2e
