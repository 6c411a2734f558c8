// Package api holds the wire types of metalctl's REST API and agent protocol, and the Go client that the CLI and the agent use.
package api
