// Package herd holds the stories of very many nodes before one server process: what it costs, how fast it is, and what it survives.
package herd
