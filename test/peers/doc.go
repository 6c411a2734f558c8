// Package peers drives the emulated BMC with other projects' clients; a module of its own, so that their dependencies stay out of the product's.
package peers
