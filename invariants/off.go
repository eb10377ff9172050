//go:build !invariants

package invariants

// Enabled is false: built without the tag invariants.
const Enabled = false
