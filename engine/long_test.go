//go:build long

package engine

import "testing"

func TestLongNothingGrows(t *testing.T) { testNothingGrows(t, 10000) }
