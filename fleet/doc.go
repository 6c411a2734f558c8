// Package fleet is the vocabulary of metalctl: nodes, ports, leases, faults and holds, and the tables of what may become of them. It does no I/O.
package fleet
