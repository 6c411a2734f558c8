// Package peers drives the emulated BMC with other projects' clients, and reads reports with their readers; a module of its own, so that their dependencies stay out of the product's.
package peers
