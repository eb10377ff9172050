//go:build invariants

package invariants

// Enabled is true: this build checks its invariants.
const Enabled = true
