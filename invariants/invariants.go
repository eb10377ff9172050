// Package invariants tells whether checks that are too slow for daily use are
// compiled in. They find broken invariants, which are errors of this program and
// never of its input, and panic:
//
//	go test -tags invariants ./...
//
// Without the tag Enabled is a false constant, and the compiler drops what it guards.
package invariants
