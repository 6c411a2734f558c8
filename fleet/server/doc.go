// Package server answers metalctl's REST API and agent protocol over HTTP, and serves boot media and images.
package server
