package recipe

// nearest finds the word closest to what was typed, and its distance.
func nearest(typed string, words []string) (best string, distance int) {
	distance = -1
	for _, w := range words {
		if d := editDistance(typed, w); distance < 0 || d < distance {
			best, distance = w, d
		}
	}
	return best, distance
}

// editDistance is the Damerau-Levenshtein distance in its optimal string
// alignment form: the fewest insertions, deletions, replacements and swaps of
// neighbours that make a into b, no part edited twice.
func editDistance(a, b string) int {
	const longest = 64 // no key is longer; a pasted page must not cost its square
	x, y := []rune(a), []rune(b)
	if len(x) > longest || len(y) > longest {
		return max(len(x), len(y))
	}
	// Row i holds the distances from x[:i] to every y[:j].
	before, above, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row[0] = i
		for j := 1; j <= len(y); j++ {
			change := above[j-1]
			if x[i-1] != y[j-1] {
				change++
			}
			row[j] = min(change, above[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, above, row = above, row, before
	}
	return above[len(y)]
}
